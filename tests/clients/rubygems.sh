# RubyGems and Bundler: those of the distribution, and newer ones of a later suite on the same Ruby.
install() {
  apt_install gem ruby
  apt_install bundle ruby-bundler
  from_debian trixie rubygems ruby-bundler ruby-rubygems
  local library='$here/rubygems/usr/lib/ruby/vendor_ruby' gems='$here/rubygems/usr/share/rubygems-integration/all/gems'
  local bundler
  bundler=$(basename "$clients"/rubygems/usr/share/rubygems-integration/all/gems/bundler-*)
  # The newer RubyGems stands in for the one that the interpreter would load by itself.
  wrapper gem-newer "/usr/bin/ruby --disable=gems -I \"$library\" -r rubygems -r rubygems/gem_runner -e 'Gem::GemRunner.new.run(ARGV)' --"
  wrapper bundle-newer "/usr/bin/ruby --disable=gems -I \"$library\" -I \"$gems/$bundler/lib\" -r rubygems \"$gems/$bundler/exe/bundle\""
  printf 'gem %s and %s, %s and %s\n' "$(gem --version)" "$("$clients/bin/gem-newer" --version)" "$(bundle --version)" "$("$clients/bin/bundle-newer" --version)"
}
