# npm and its relatives, in exact versions, and the Node that runs them.
node_version=22.23.3
npm_version=11.19.1
yarn1_version=1.22.22
berry_version=4.18.1
pnpm_version=12.21.0
bun_version=1.4.4

install() {
  apt_install npm nodejs npm ca-certificates
  local machine
  case $(uname -m) in
    x86_64) machine=x64 ;;
    aarch64) machine=arm64 ;;
    *) echo "tests/run: no Node build is known for $(uname -m)" >&2; exit 1 ;;
  esac
  from_npm node "node-linux-$machine@$node_version"
  from_npm npm "npm@$npm_version"
  from_npm yarn1 "yarn@$yarn1_version"
  from_npm berry "@yarnpkg/cli-dist@$berry_version"
  from_npm pnpm "pnpm@$pnpm_version"
  from_npm bun "bun@$bun_version"
  client "node/node_modules/node-linux-$machine/bin/node" node
  wrapper npm '"$here/bin/node" "$here/npm/node_modules/npm/bin/npm-cli.js"'
  wrapper yarn1 '"$here/bin/node" "$here/yarn1/node_modules/yarn/bin/yarn.js"'
  wrapper berry '"$here/bin/node" "$here/berry/node_modules/@yarnpkg/cli-dist/bin/yarn.js"'
  client pnpm/node_modules/.bin/pnpm pnpm
  client bun/node_modules/.bin/bun bun
  local name
  for name in node npm yarn1 berry pnpm bun; do
    printf '%s %s\n' "$name" "$(cd "$clients" && PATH="$clients/bin:$PATH" "$clients/bin/$name" --version)"
  done
}
