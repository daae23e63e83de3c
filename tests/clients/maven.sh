# Maven with the plugins of its usual life cycle, and Gradle, all of the distribution. Their artifacts are also the
# repository that the tests use as an upstream: /usr/share/maven-repo.
install() {
  apt_install mvn maven
  apt_install javac default-jdk-headless
  apt_install gradle gradle
  [ -d /usr/share/maven-repo/org/apache/maven/plugins/maven-deploy-plugin ] || apt_install no-maven-plugins \
    libmaven-deploy-plugin-java libmaven-dependency-plugin-java libmaven-install-plugin-java libmaven-resources-plugin-java \
    libmaven-jar-plugin-java libmaven-compiler-plugin-java libsurefire-java libmaven-clean-plugin-java libmaven-source-plugin-java
  # The distribution's Gradle leaves one jar off its publishing plugin's class path, without which it cannot deploy.
  apt_install unzip unzip
  local plugin
  plugin=$(readlink -f /usr/share/gradle/lib/plugins/gradle-maven-4.4.1.jar || true)
  if [ -f "$plugin" ] && [[ $(unzip -p "$plugin" gradle-maven-classpath.properties) != *transport-wagon* ]]; then
    local work
    work=$(mktemp -d)
    unzip -q "$plugin" gradle-maven-classpath.properties -d "$work"
    sed -i 's/maven-resolver-util.jar/maven-resolver-transport-wagon.jar,maven-resolver-util.jar/' "$work/gradle-maven-classpath.properties"
    (cd "$work" && jar uf "$plugin" gradle-maven-classpath.properties)
    rm -rf "$work"
  fi
  # Read whole: Maven fails when whoever reads it stops after the first line.
  local version
  version=$(mvn --version)
  echo "${version%%$'\n'*}"
}
