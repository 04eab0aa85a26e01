//! How numbers, times and histories are written for people.

use std::fmt::Write;

use backstop_protocol::Timestamp;

/// Writes a count with thin groups of three digits: `1 234 567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 * 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Says how long ago something was, as HTML that carries the exact time.
pub(crate) fn ago(time: Timestamp, now: Timestamp) -> String {
    let exact = exact(time);
    let seconds = now.seconds() - time.seconds();
    let words = match seconds {
        ..=-60 => return format!("<time datetime=\"{time}\">{exact}</time>"),
        -59..10 => "just now".to_owned(),
        10..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        86_400..2_592_000 => format!("{} d ago", seconds / 86_400),
        _ => {
            return format!(
                "<time datetime=\"{time}\" title=\"{exact}\">{}</time>",
                &exact[..10]
            );
        }
    };
    format!("<time datetime=\"{time}\" title=\"{exact}\">{words}</time>")
}

/// Writes a time to the second, in UTC.
pub(crate) fn exact(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{} {} UTC", &text[..10], &text[11..19])
}

/// Draws a history as bars, oldest first; HTML.
pub(crate) fn spark(counts: &[u64], label: &str) -> String {
    const WIDTH: usize = 240;
    const HEIGHT: usize = 48;
    let top = counts.iter().copied().max().unwrap_or(0).max(1);
    let step = WIDTH as f64 / counts.len().max(1) as f64;
    let sum: u64 = counts.iter().sum();
    let mut svg = format!(
        "<svg class=\"spark\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"{sum} events in {label}, at most {top} at a time\">",
        top = counts.iter().copied().max().unwrap_or(0)
    );
    for (index, count) in counts.iter().enumerate() {
        let x = index as f64 * step;
        let width = step * 0.75;
        // Writing into a String cannot fail.
        let _ = if *count == 0 {
            let y = HEIGHT - 2;
            write!(
                svg,
                "<rect class=\"zero\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"2\"/>"
            )
        } else {
            let height = (*count as f64 / top as f64 * (HEIGHT - 4) as f64).max(4.0);
            let y = HEIGHT as f64 - height;
            write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            )
        };
    }
    svg.push_str("</svg>");
    svg
}

/// Writes any JSON value as text for a table: text bare, the rest as indented JSON.
pub(crate) fn value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        value @ (serde_json::Value::Array(_) | serde_json::Value::Object(_)) => {
            serde_json::to_string_pretty(value).unwrap_or_default()
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1234), "1\u{202f}234");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn times_are_relative_near_and_dates_far() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let check = |time: &str, words: &str| {
            let text = ago(time.parse().unwrap(), now);
            assert!(text.contains(&format!(">{words}</time>")), "{text}");
        };
        check("2026-11-22T11:59:55Z", "just now");
        check("2026-11-22T11:59:15Z", "45 s ago");
        check("2026-11-22T11:00:01Z", "59 min ago");
        check("2026-11-21T12:00:01Z", "23 h ago");
        check("2026-11-01T12:00:00Z", "21 d ago");
        check("2026-01-01T12:00:00Z", "2026-01-01");
        check("2026-11-22T12:05:00Z", "2026-11-22 12:05:00 UTC");
    }

    #[test]
    fn a_history_says_what_it_shows() {
        let svg = spark(&[0, 3, 1], "24 hours");
        assert!(
            svg.contains("4 events in 24 hours, at most 3 at a time"),
            "{svg}"
        );
        assert_eq!(svg.matches("<rect").count(), 3);
        assert_eq!(svg.matches("class=\"zero\"").count(), 1);
        assert!(spark(&[], "24 hours").contains("0 events"));
    }
}
