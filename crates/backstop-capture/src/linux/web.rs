//! Values of the `http` crate: addresses of requests, names of headers, versions.

use super::printers::Part;
use super::render::{Renderer, Result, whole_characters};
use super::ty::Kind;
use crate::{State, Value};

impl Renderer<'_> {
    /// Renders a type of `http` that is known by its path; `None` for all others.
    pub(super) fn known_web(&mut self, part: &Part) -> Option<Result<Value>> {
        match part.ty.base.as_str() {
            "http::uri::Uri" => self.uri(part),
            "http::uri::authority::Authority" => {
                let text = match self.byte_str(&part.field("data")?)? {
                    Ok(text) => text,
                    Err(state) => return Some(Err(state)),
                };
                // The scheme that makes what follows a password stands elsewhere.
                let hidden = self.hides_text(&format!("://{text}"));
                Some(if hidden {
                    Err(State::Redacted)
                } else {
                    Ok(Value::Formatted(text))
                })
            }
            "http::uri::path::PathAndQuery" => {
                let text = self.byte_str(&part.field("data")?)?;
                Some(text.and_then(|text| self.formatted(text)))
            }
            "http::header::name::HeaderName" => self.header_name(part),
            "http::version::Version" => {
                let version = part.innermost();
                let version = self.try_value(version.ty, &version.place);
                Some(version.map(|version| match version {
                    Value::Symbol(name) => Value::Formatted(version_text(&name).to_owned()),
                    value => value,
                }))
            }
            _ => None,
        }
    }

    fn uri(&mut self, uri: &Part) -> Option<Result<Value>> {
        let (scheme, authority) = (uri.field("scheme")?, uri.field("authority")?);
        let path = uri.field("path_and_query")?.field("data")?;
        let scheme = self.scheme(&scheme.field("inner")?)?;
        let authority = self.byte_str(&authority.field("data")?)?;
        let path = self.byte_str(&path)?;
        // Without a scheme, as in a proxy's address, the whole does not look like an address.
        let login = |authority: &String| self.hides_text(&format!("://{authority}"));
        if authority.as_ref().is_ok_and(login) {
            return Some(Err(State::Redacted));
        }
        let text = || {
            let (scheme, authority, path) = (scheme?, authority?, path?);
            let separator = if scheme.is_empty() { "" } else { "://" };
            // A path of nothing is the root, except where there is only an authority.
            let root = if path.is_empty() && !scheme.is_empty() {
                "/"
            } else {
                ""
            };
            Ok(format!("{scheme}{separator}{authority}{root}{path}"))
        };
        Some(text().and_then(|text| self.formatted(text)))
    }

    fn scheme(&mut self, scheme: &Part) -> Option<Result<String>> {
        let Kind::Enum(_, variants) = &scheme.ty.kind else {
            return None;
        };
        let variant = match self.active(variants, &scheme.place) {
            Ok(variant) => variant,
            Err(state) => return Some(Err(state)),
        };
        match variant.field.name {
            "None" => Some(Ok(String::new())),
            "Standard" => {
                let protocol = scheme.of(&variant.field)?.field("__0")?;
                let protocol = self.try_value(protocol.ty, &protocol.place);
                Some(protocol.map(|protocol| protocol.to_string().to_lowercase()))
            }
            _ => {
                let text = scheme.of(&variant.field)?.field("__0")?.pointer()?;
                let target = text.target()?;
                let address = text.place.uint(self.memory, 8);
                match address {
                    Ok(address) => self.byte_str(&Part {
                        ty: target,
                        place: super::location::Place::Memory(address as u64),
                    }),
                    Err(state) => Some(Err(state)),
                }
            }
        }
    }

    fn header_name(&mut self, name: &Part) -> Option<Result<Value>> {
        let inner = name.field("inner")?;
        let Kind::Enum(_, variants) = &inner.ty.kind else {
            return None;
        };
        let variant = match self.active(variants, &inner.place) {
            Ok(variant) => variant,
            Err(state) => return Some(Err(state)),
        };
        let content = inner.of(&variant.field)?.field("__0")?;
        let text = if variant.field.name == "Standard" {
            let standard = self.try_value(content.ty, &content.place);
            standard.map(|standard| kebab(&standard.to_string()))
        } else {
            self.byte_str(&content)?
        };
        Some(text.map(|text| Value::Formatted(format!("{text:?}"))))
    }

    /// The text of a `ByteStr`, which is `Bytes` of UTF-8; not yet looked at for secrets.
    fn byte_str(&mut self, text: &Part) -> Option<Result<String>> {
        let bytes = text.find_type("bytes::bytes::Bytes")?;
        let (pointer, len) = (bytes.field("ptr")?.pointer()?, bytes.field("len")?);
        let mut read = || {
            let address = pointer.place.uint(self.memory, 8)? as u64;
            let len = len.place.uint(self.memory, 8)? as u64;
            let bytes = self.text_bytes(address, len)?;
            if (bytes.len() as u64) < len {
                self.cut();
            }
            whole_characters(bytes, len)
        };
        Some(read())
    }

    fn formatted(&self, text: String) -> Result<Value> {
        if self.hides_text(&text) {
            return Err(State::Redacted);
        }
        Ok(Value::Formatted(text))
    }
}

fn version_text(name: &str) -> &str {
    match name {
        "Http09" => "HTTP/0.9",
        "Http10" => "HTTP/1.0",
        "Http11" => "HTTP/1.1",
        "H2" => "HTTP/2.0",
        "H3" => "HTTP/3.0",
        other => other,
    }
}

/// `ContentType` as the header is written: `content-type`.
fn kebab(name: &str) -> String {
    // One word in the header, two in the name.
    let name = &name.replace("WebSocket", "Websocket");
    let mut text = String::with_capacity(name.len() + 4);
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_headers() {
        assert_eq!(kebab("ContentType"), "content-type");
        assert_eq!(kebab("WwwAuthenticate"), "www-authenticate");
        assert_eq!(kebab("Accept"), "accept");
        assert_eq!(kebab("SecWebSocketKey"), "sec-websocket-key");
    }
}
