//! RubyGems.
pub mod archive;
pub mod gemspec;
pub mod version;
pub mod yaml;
