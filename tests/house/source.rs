//! A source file as the rules see it: code, strings and comments told apart.
//!
//! Text is enough here. A parser would know more than any rule asks for, and would
//! refuse a file that is being written. What must not happen is a rule that trips
//! over a word in a comment, so comments and the contents of strings are blanked
//! before code is searched, line by line in place.

/// A Rust file.
pub(crate) struct Source {
    /// Path below the root of the repository, with `/` as separator.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) text: String,
    /// The text with comments and the contents of strings and characters blanked; as many lines, as many bytes.
    pub(crate) code: String,
    /// Every string literal: its line and what stands between the quotes.
    pub(crate) strings: Vec<(usize, String)>,
    /// For each line whether it belongs to tests.
    pub(crate) test_lines: Vec<bool>,
}

impl Source {
    /// Takes a file apart.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, strings) = blank(text);
        let whole = path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
        let test_lines = if whole { vec![true; text.lines().count()] } else { test_lines(&code) };
        Self { path: path.into(), text: text.into(), code, strings, test_lines }
    }

    /// The path of modules from the crate's root, `["http", "reply"]` for `src/http/reply.rs`. Empty for the root itself.
    pub(crate) fn module(&self) -> Vec<&str> {
        let Some(inner) = self.path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs")) else { return Vec::new() };
        let mut parts: Vec<&str> = inner.split('/').collect();
        if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
            parts.pop();
        }
        parts
    }

    /// Whether a line, counted from one, belongs to tests.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// Lines of code, counted from one.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// Whether `word` stands in `line` with nothing of a name on either side.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    line.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).map(|index| line.as_bytes()[index]);
        let after = line.as_bytes().get(at + word.len()).copied();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

fn blank(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (end, inner) = if rest.starts_with(b"//") {
            (at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with(b"/*") {
            (block_comment(bytes, at), None)
        } else if let Some((open, end, close)) = string(bytes, at) {
            (end, Some((open, end.saturating_sub(close).max(open))))
        } else if let Some(end) = character(bytes, at) {
            (end, Some((at + 1, end - 1)))
        } else {
            at += 1;
            continue;
        };
        let (from, to) = inner.unwrap_or((at, end));
        if bytes[at] != b'\'' && inner.is_some() {
            let line = text[..at].matches('\n').count() + 1;
            strings.push((line, String::from_utf8_lossy(&bytes[from..to]).into_owned()));
        }
        code[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    (String::from_utf8_lossy(&code).into_owned(), strings)
}

fn block_comment(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// A string that starts at `at`: where its contents start, where it ends, and how long its closing mark is.
fn string(bytes: &[u8], at: usize) -> Option<(usize, usize, usize)> {
    let within_name = at.checked_sub(1).is_some_and(|index| bytes[index].is_ascii_alphanumeric() || bytes[index] == b'_');
    let mut open = at;
    if !within_name && matches!(bytes[open], b'b' | b'c') {
        open += 1;
    }
    let raw = !within_name && bytes.get(open) == Some(&b'r');
    if raw {
        open += 1;
    }
    let hashes = if raw { bytes[open..].iter().take_while(|byte| **byte == b'#').count() } else { 0 };
    open += hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    open += 1;
    let mut end = open;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' if !raw => end += 2,
            b'"' if bytes[end + 1..].iter().take_while(|byte| **byte == b'#').count() >= hashes => {
                return Some((open, end + 1 + hashes, 1 + hashes));
            }
            _ => end += 1,
        }
    }
    Some((open, bytes.len(), 0))
}

/// The end of a character literal that starts at `at`, if it is one and no lifetime.
fn character(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at] != b'\'' {
        return None;
    }
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes.get(at + 3..)?.iter().position(|byte| *byte == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let text = std::str::from_utf8(bytes.get(at + 1..(at + 6).min(bytes.len()))?)
        .or_else(|error| std::str::from_utf8(&bytes[at + 1..at + 1 + error.valid_up_to()]));
    let width = text.ok()?.chars().next()?.len_utf8();
    (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + width + 2)
}

/// Marks what `#[cfg(test)]` governs: up to the brace that closes its item, or to the semicolon of `mod tests;`.
fn test_lines(code: &str) -> Vec<bool> {
    let mut marked = vec![false; code.lines().count()];
    for (at, mark) in code.match_indices("#[cfg(test)]") {
        let mut depth = 0;
        let mut end = code.len();
        for (index, byte) in code.bytes().enumerate().skip(at + mark.len()) {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(byte, b'}' | b';') {
                end = index;
                break;
            }
        }
        let line = |index: usize| code[..index].matches('\n').count();
        let last = line(end).min(marked.len() - 1);
        marked[line(at)..=last].fill(true);
    }
    marked
}
