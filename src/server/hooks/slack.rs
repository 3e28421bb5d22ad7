//! The text of a message of Slack (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).

use std::iter;

use serde_json::Value;

use super::excerpt::{MOST_ITEMS, link_of};

/// The text, or else that of the blocks, and then the attachments; `None` if there is nothing of them.
pub(super) fn text_of(payload: &Value) -> Option<String> {
    let text = text_at(payload, "text").map(|text| vec![text]);
    let mut parts = text.unwrap_or_else(|| texts_of_blocks(payload));
    let attachments = payload["attachments"].as_array().into_iter().flatten();
    parts.extend(attachments.take(MOST_ITEMS).filter_map(text_of_attachment));
    (!parts.is_empty()).then(|| parts.join("\n"))
}

/// Whether the message, or one of its attachments, has blocks (<https://docs.slack.dev/reference/block-kit/blocks>).
pub(super) fn has_blocks(payload: &Value) -> bool {
    let attachments = payload["attachments"].as_array().into_iter().flatten();
    iter::once(payload)
        .chain(attachments)
        .any(|part| part["blocks"].is_array())
}

/// The fields of an attachment (<https://docs.slack.dev/legacy/legacy-messaging/legacy-secondary-message-attachments>).
fn text_of_attachment(attachment: &Value) -> Option<String> {
    let parts = ["pretext", "title", "text"].into_iter();
    let mut parts: Vec<_> = parts.filter_map(|part| text_at(attachment, part)).collect();
    let fields = attachment["fields"].as_array().into_iter().flatten();
    parts.extend(fields.filter_map(|field| {
        let both = [text_at(field, "title"), text_at(field, "value")];
        let both: Vec<_> = both.into_iter().flatten().collect();
        (!both.is_empty()).then(|| both.join(": "))
    }));
    parts.extend(texts_of_blocks(attachment));
    if parts.is_empty() {
        parts.push(text_at(attachment, "fallback")?);
    }
    let text = parts.join("\n");
    let link = link_of(attachment, &["/title_link"]);
    let is_there = text
        .split(|c: char| c.is_whitespace() || "()".contains(c))
        .any(|word| word == link.trim_start());
    Some(if is_there { text } else { text + &link })
}

/// The texts of the simple blocks: headers, sections and contexts.
fn texts_of_blocks(part: &Value) -> Vec<String> {
    let blocks = part["blocks"].as_array().into_iter().flatten();
    let simple = blocks.filter(|block| {
        matches!(
            block["type"].as_str(),
            Some("header" | "section" | "context")
        )
    });
    let texts = simple.flat_map(|block| {
        let lists = ["fields", "elements"].into_iter();
        let listed = lists.filter_map(|list| block[list].as_array()).flatten();
        iter::once(&block["text"]).chain(listed)
    });
    texts.filter_map(|text| text_at(text, "text")).collect()
}

/// The text of a field as people read it; `None` if it is blank.
fn text_at(part: &Value, field: &str) -> Option<String> {
    let text = part[field].as_str()?;
    (!text.trim().is_empty()).then(|| plain(text))
}

/// Slack's text as people read it: `<https://x|y>` is `y (https://x)`, and three characters are escaped
/// (<https://docs.slack.dev/messaging/formatting-message-text>).
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('<') {
        plain.push_str(before);
        // The search ends at the next `<`: a body of nothing else would take half a minute otherwise.
        let link = behind.split_once(['<', '>']).filter(|(link, _)| {
            behind[link.len()..].starts_with('>')
                && (link.starts_with("http://") || link.starts_with("https://"))
        });
        rest = match link {
            Some((link, behind)) => {
                match link.split_once('|') {
                    Some((link, label)) => plain.push_str(&format!("{label} ({link})")),
                    None => plain.push_str(link),
                }
                behind
            }
            None => {
                plain.push('<');
                behind
            }
        };
    }
    plain.push_str(rest);
    let unescaped = plain.replace("&lt;", "<").replace("&gt;", ">");
    unescaped.replace("&amp;", "&")
}
