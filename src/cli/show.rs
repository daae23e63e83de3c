//! How an answer is shown. Pure.

use serde_json::Value;

/// How the answer to a command is shown to people. With `--json` it is printed as it came.
#[derive(Debug)]
pub(super) enum Show {
    /// A list of records, one a line, with these fields.
    Table(&'static [&'static str]),
    /// One record, a field a line.
    Record(&'static [&'static str]),
    /// One field alone, so that a script can take it without parsing.
    Field(&'static str),
    /// A sentence.
    Done(String),
    /// Indented JSON.
    Json,
}

/// The text for standard output, ending in a line end unless it is empty.
pub(super) fn show(show: &Show, answer: &Value, json: bool) -> String {
    match show {
        _ if json => pretty(answer),
        Show::Json => pretty(answer),
        Show::Done(sentence) => format!("{sentence}\n"),
        Show::Field(name) => format!("{}\n", cell(&answer[*name])),
        Show::Record(fields) => {
            let width = fields.iter().map(|field| field.len()).max().unwrap_or(0);
            let lines: Vec<_> = fields.iter().map(|field| format!("{field:width$}  {}\n", cell(&answer[*field]))).collect();
            lines.concat()
        }
        Show::Table(fields) => table(fields, answer.as_array().map_or(&[], Vec::as_slice)),
    }
}

fn table(fields: &[&str], items: &[Value]) -> String {
    let rows: Vec<Vec<String>> = items.iter().map(|item| fields.iter().map(|field| cell(&item[*field])).collect()).collect();
    let head: Vec<String> = fields.iter().map(|field| field.to_uppercase().replace('_', " ")).collect();
    let width = |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..fields.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    std::iter::once(&head).chain(&rows).map(line).collect()
}

/// A value in one word or a few. Control characters could command the terminal, so they do not get there.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(members) => members.iter().map(|(name, value)| format!("{name}={}", cell(value))).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn pretty(answer: &Value) -> String {
    if answer.is_null() { String::new() } else { format!("{answer:#}\n") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_line_up() {
        let items = json!([
            { "login": "ann", "site_admin": true, "email": null },
            { "login": "a-longer-one", "site_admin": false, "email": "x\u{1b}[31m@y" },
        ]);
        insta::assert_snapshot!(show(&Show::Table(&["login", "site_admin", "email"]), &items, false), @r"
        LOGIN         SITE ADMIN  EMAIL
        ann           yes         -
        a-longer-one  no          x�[31m@y
        ");
        assert_eq!(show(&Show::Table(&["login"]), &json!([]), false), "LOGIN\n");
    }

    #[test]
    fn one_field_stands_alone_and_json_is_the_answer_itself() {
        let answer = json!({ "token": "pkh_x", "id": 3, "scopes": ["a", "b"] });
        assert_eq!(show(&Show::Field("token"), &answer, false), "pkh_x\n");
        assert_eq!(show(&Show::Record(&["id", "scopes"]), &answer, false), "id      3\nscopes  a,b\n");
        assert_eq!(serde_json::from_str::<Value>(&show(&Show::Done("done".into()), &answer, true)).unwrap(), answer);
        assert_eq!(show(&Show::Done("done".into()), &Value::Null, true), "");
    }
}
