//! Parts of a short text from values that another service sent. Each becomes one line, so that none of them looks like
//! a line of ours.

use serde_json::Value;

/// The most commits, alerts or attachments that one text has.
pub(super) const MOST_ITEMS: usize = 5;

/// The longest value that is no link, in characters.
const LONGEST_VALUE: usize = 200;

/// The longest link, in bytes. A longer one is left out, since half a link leads nowhere.
const LONGEST_LINK: usize = 1000;

/// Stands in the place of a part that was cut off.
const CUT: &str = "…";

/// The beginning of a text that fits into so many bytes.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let sign = if most < CUT.len() { "" } else { CUT };
    let mut end = most - sign.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{sign}", &text[..end])
}

/// The value at a JSON pointer (RFC 6901) as one line; `None` if it is no text or number, or empty.
pub(super) fn line(payload: &Value, pointer: &str) -> Option<String> {
    let text = match payload.pointer(pointer)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let fits = line.char_indices().nth(LONGEST_VALUE);
    let line = fits.map_or(line.clone(), |(end, _)| format!("{}{CUT}", &line[..end]));
    Some(line).filter(|line| !line.is_empty())
}

/// The first line of a longer text, such as the subject of a commit.
pub(super) fn first_line(payload: &Value, pointer: &str) -> Option<String> {
    let text = payload.pointer(pointer)?.as_str()?.trim_start();
    line(&Value::from(text.lines().next()?), "")
}

/// The address at the first of these pointers that has one, on a line of its own; empty if none has.
pub(super) fn link_of(payload: &Value, pointers: &[&str]) -> String {
    let mut found = pointers
        .iter()
        .filter_map(|pointer| payload.pointer(pointer)?.as_str());
    let link = found.find(|link| {
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
        (link.starts_with("https://") || link.starts_with("http://"))
            && link.len() <= LONGEST_LINK
            && link.chars().all(is_plain)
    });
    link.map_or(String::new(), |link| format!("\n{link}"))
}

/// A line for each of the first items, and one that counts the others and those that the sender left out.
pub(super) fn list(
    items: &[Value],
    left_out: u64,
    to_line: impl Fn(&Value) -> Option<String>,
) -> String {
    let lines = items.iter().take(MOST_ITEMS).filter_map(to_line);
    let mut text: String = lines.map(|line| format!("\n- {line}")).collect();
    let others = items.iter().skip(MOST_ITEMS).count() as u64;
    let more = left_out.saturating_add(others);
    if more > 0 {
        text.push_str(&format!("\n- {CUT} and {more} more"));
    }
    text
}
