//! The rules, each a plain function from sources to one line per offender.

use crate::source::{Source, has_word};

/// Floors as `src/lib.rs` declares them: the name of each module and the number of its paragraph.
pub(crate) fn floors(sources: &[Source]) -> Vec<(String, usize)> {
    let Some(root) = sources.iter().find(|source| source.path == "src/lib.rs") else { return Vec::new() };
    let mut floor = 0;
    let mut fresh = false;
    let mut found = Vec::new();
    for line in root.code.lines() {
        let line = line.trim();
        let declared = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod ")).and_then(|rest| rest.strip_suffix(';'));
        if let Some(name) = declared {
            found.push((name.trim().to_owned(), floor));
            fresh = true;
        } else if line.is_empty() && fresh {
            floor += 1;
            fresh = false;
        }
    }
    found
}

/// Imports point down: a module uses only its own submodules and modules of paragraphs above its own in `src/lib.rs`.
pub(crate) fn imports_point_down(sources: &[Source]) -> Vec<String> {
    let floors = floors(sources);
    let floor = |name: &str| floors.iter().find(|(module, _)| module == name).map(|(_, floor)| *floor);
    let mut offenders = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let module = source.module();
        let Some(own) = module.first() else { continue };
        let Some(height) = floor(own) else {
            offenders.push(format!("{}: the module `{own}` is not declared in src/lib.rs", source.path));
            continue;
        };
        for (line, used) in crate_paths(source) {
            let place = format!("{}:{line}", source.path);
            match floor(&used) {
                _ if used == *own => {}
                Some(other) if other < height => {}
                Some(other) if other == height => offenders.push(format!("{place}: `{own}` imports `{used}` of its own floor")),
                Some(_) => offenders.push(format!("{place}: `{own}` imports `{used}` from a floor above it in the house")),
                None => offenders.push(format!("{place}: `crate::{used}` is no module of src/lib.rs")),
            }
        }
        for (line, code) in source.code_lines() {
            // Inside a test module one more `super` is needed to leave the file.
            let most = module.len() - usize::from(!source.is_test(line));
            if has_word(code, &vec!["super"; most + 1].join("::")) {
                offenders.push(format!("{}:{line}: `super` reaches the root of the crate; write `crate::…`", source.path));
            }
        }
    }
    offenders
}

/// The first part of every `crate::…` path, also inside `crate::{…}`, with its line.
fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let name = |text: &str| text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, mark) in code.match_indices("crate::") {
        if at > 0 && (code.as_bytes()[at - 1].is_ascii_alphanumeric() || code.as_bytes()[at - 1] == b'_') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + mark.len()..];
        if rest.starts_with('{') {
            for (offset, part) in top_level_parts(rest) {
                found.push((line + rest[..offset].matches('\n').count(), name(part)));
            }
        } else {
            found.push((line, name(rest)));
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// The parts of `{a, b::{c, d}, e}` between its outermost commas, each with its offset.
fn top_level_parts(group: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let mut depth = 0;
    let mut start = 1;
    for (index, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if (byte == b',' && depth == 1) || depth == 0 {
            let part = &group[start..index];
            let lead = part.len() - part.trim_start().len();
            parts.push((start + lead, part.trim()));
            start = index + 1;
        }
        if depth == 0 {
            break;
        }
    }
    parts
}

/// Ecosystems are the folders in `src/ecosystem`.
pub(crate) fn ecosystems(sources: &[Source]) -> Vec<&str> {
    let mut names: Vec<&str> = sources
        .iter()
        .filter_map(|source| source.path.strip_prefix("src/ecosystem/"))
        .filter_map(|path| path.split_once('/').map(|(folder, _)| folder))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Files of an ecosystem that may wait for something.
const MAY_WAIT: [&str; 8] = ["mod.rs", "publish.rs", "upload.rs", "token.rs", "change.rs", "account.rs", "search.rs", "audit.rs"];
/// What the other files of an ecosystem may import of ours.
const PURE: [&str; 9] = ["error", "name", "archive", "digest", "xml", "package", "format", "http", "ecosystem"];

/// Formats do no IO: they neither wait nor import anything that does.
pub(crate) fn formats_do_no_io(sources: &[Source]) -> Vec<String> {
    let mut offenders = Vec::new();
    for source in sources {
        let Some((_, file)) = source.path.strip_prefix("src/ecosystem/").and_then(|path| path.split_once('/')) else { continue };
        if MAY_WAIT.contains(&file) {
            continue;
        }
        // One line for each word and file: the first says it all.
        for word in ["async", "await", "tokio", "reqwest", "std::fs", "std::net", "std::process"] {
            let place = source.code_lines().find(|(line, code)| !source.is_test(*line) && has_word(code, word));
            offenders.extend(place.map(|(line, _)| format!("{}:{line}: a format does no IO, and here stands `{word}`", source.path)));
        }
        for (line, used) in crate_paths(source).into_iter().filter(|(line, _)| !source.is_test(*line)) {
            if !PURE.contains(&used.as_str()) {
                offenders.push(format!("{}:{line}: a format imports `{used}`; allowed are {}", source.path, PURE.join(", ")));
            }
        }
    }
    offenders
}

/// One line registers an ecosystem: each folder is named once in `ALL`.
pub(crate) fn one_line_registers(sources: &[Source]) -> Vec<String> {
    let code = sources.iter().find(|source| source.path == "src/ecosystem/mod.rs").map_or("", |source| source.code.as_str());
    let list = code
        .split_once(" ALL:")
        .and_then(|(_, rest)| rest.split_once('='))
        .and_then(|(_, rest)| rest.split_once(';'))
        .map_or("", |(list, _)| list);
    ecosystems(sources)
        .into_iter()
        .filter_map(|name| {
            let count = list.matches(&format!("&{name}::")).count();
            (count != 1).then(|| format!("src/ecosystem/mod.rs: `ALL` names `{name}` {count} times; once is right"))
        })
        .collect()
}

/// Nothing outside `src/ecosystem` names an ecosystem, neither as a path nor as a word in a string.
pub(crate) fn nobody_names_an_ecosystem(sources: &[Source]) -> Vec<String> {
    let names = ecosystems(sources);
    let mut offenders = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/") && !source.path.starts_with("src/ecosystem/")) {
        for name in &names {
            for (line, code) in source.code_lines().filter(|(line, _)| !source.is_test(*line)) {
                if has_word(code, &format!("{name}::")) || code.contains(&format!("::{name}")) && has_word(code, name) {
                    offenders.push(format!("{}:{line}: the path `{name}::` outside src/ecosystem", source.path));
                }
            }
            for (line, string) in source.strings.iter().filter(|(line, _)| !source.is_test(*line)) {
                if has_word(string, name) {
                    offenders.push(format!("{}:{line}: a string names `{name}` outside src/ecosystem", source.path));
                }
            }
        }
    }
    offenders
}

/// Every module opens with `//!`.
pub(crate) fn modules_say_what_they_are(sources: &[Source]) -> Vec<String> {
    let silent = |source: &&Source| !source.text.starts_with("//! ");
    sources.iter().filter(silent).map(|source| format!("{}: does not open with `//!`", source.path)).collect()
}

const FORBIDDEN: [&str; 10] = ["util", "utils", "helper", "helpers", "common", "misc", "manager", "service", "data", "info"];
const FORBIDDEN_ENDINGS: [&str; 7] = ["Util", "Utils", "Helper", "Manager", "Service", "Handler", "Info"];

/// No file, module or type has one of the names that say nothing.
pub(crate) fn names_say_something(sources: &[Source]) -> Vec<String> {
    let mut offenders = Vec::new();
    for source in sources {
        let parts = source.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
        for part in parts.filter(|part| FORBIDDEN.contains(part) || part.ends_with("_handler")) {
            offenders.push(format!("{}: nothing is called `{part}`", source.path));
        }
        for (line, code) in source.code_lines() {
            let words: Vec<&str> = code.split(|character: char| !(character.is_alphanumeric() || character == '_')).collect();
            for pair in words.windows(2) {
                let bad = match pair[0] {
                    "mod" => FORBIDDEN.contains(&pair[1]),
                    "struct" | "enum" | "trait" => {
                        FORBIDDEN_ENDINGS.iter().any(|ending| pair[1].ends_with(ending))
                            && (source.path.as_str(), pair[1]) != ("src/ecosystem/mod.rs", "Info")
                    }
                    _ => false,
                };
                if bad {
                    offenders.push(format!("{}:{line}: nothing is called `{}`", source.path, pair[1]));
                }
            }
        }
    }
    offenders
}

/// Files that may hold `unsafe`, each with its proof in its own module text.
const UNSAFE_LEAVES: [&str; 1] = ["src/http/mapping.rs"];

/// No `unsafe` outside the listed leaf files.
pub(crate) fn unsafe_stays_in_leaves(sources: &[Source]) -> Vec<String> {
    let allowed = |source: &&Source| !UNSAFE_LEAVES.contains(&source.path.as_str());
    let word = |code: &str| has_word(code, "unsafe") || has_word(code, "unsafe_code");
    let lines = |source: &Source| -> Vec<String> {
        source.code_lines().filter(|(_, code)| word(code)).map(|(line, _)| format!("{}:{line}: `unsafe`", source.path)).collect()
    };
    sources.iter().filter(allowed).flat_map(lines).collect()
}

/// Nothing unfinished, left over, or switched off.
pub(crate) fn nothing_is_unfinished(sources: &[Source]) -> Vec<String> {
    let mut offenders = Vec::new();
    for source in sources {
        for (line, code) in source.code_lines() {
            for word in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
                if code.contains(word) {
                    offenders.push(format!("{}:{line}: `{word}`", source.path));
                }
            }
        }
    }
    offenders
}

/// No text outside `but` holds one of the words. `why` names the kind of word.
pub(crate) fn nothing_holds(files: &[(String, String)], words: &[String], but: &str, why: &str) -> Vec<String> {
    let mut offenders = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path != but) {
        for (index, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                offenders.push(format!("{path}:{}: {why}: {word}", index + 1));
            }
        }
    }
    offenders
}
