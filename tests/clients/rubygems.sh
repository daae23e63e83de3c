# RubyGems and Bundler of the distribution.
install() {
  apt_install gem ruby
  apt_install bundle ruby-bundler
  printf 'gem %s, %s\n' "$(gem --version)" "$(bundle --version)"
}
