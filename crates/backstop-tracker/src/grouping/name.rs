//! What functions and modules are called, without what changes from build to build.
//!
//! Compilers decorate names with numbers, hashes, type parameters and their own helpers.
//! Here a name loses all of that, and a name that a minifier or a compiler invented is told
//! apart from one that a person wrote.

use std::borrow::Cow;

use backstop_protocol::Frame;

/// The language family of a frame, which decides how its names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Rust,
    Python,
    Js,
    Java,
    Go,
    Ruby,
    DotNet,
    Php,
    Other,
}

impl Family {
    /// How many families there are.
    pub(super) const COUNT: usize = Family::Other as usize + 1;

    pub(super) fn of(platform: Option<&str>) -> Family {
        match platform.unwrap_or_default() {
            "rust" | "native" | "c" => Family::Rust,
            "python" => Family::Python,
            "node" | "javascript" => Family::Js,
            "java" | "kotlin" | "scala" => Family::Java,
            "go" => Family::Go,
            "ruby" => Family::Ruby,
            "csharp" | "dotnet" => Family::DotNet,
            "php" => Family::Php,
            _ => Family::Other,
        }
    }

    /// The family of one frame: mixed stacks say so at the frame.
    pub(super) fn of_frame(self, frame: &Frame) -> Family {
        let own = frame.other.get("platform").and_then(|value| value.as_str());
        own.map_or(self, |platform| Family::of(Some(platform)))
    }
}

/// A function's name as far as it identifies the function.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// A person wrote it.
    Written(Cow<'a, str>),
    /// The function has no name: a closure, a lambda, a comprehension.
    Anonymous,
    /// A minifier invented it.
    Minified,
}

/// Reads a function's name.
pub(super) fn function_name<'a>(family: Family, frame: &'a Frame) -> Name<'a> {
    let raw = frame.function.as_deref().unwrap_or_default().trim();
    match family {
        Family::Rust => written(rust(raw)),
        Family::Python => python(raw),
        Family::Js => js(raw, frame.context_line.as_deref()),
        Family::Java => written(java(raw)),
        Family::Go => written(go(raw)),
        Family::Ruby => written(ruby(raw)),
        Family::DotNet => written(dot_net(raw, frame.module.as_deref().unwrap_or_default())),
        Family::Php => written(php(raw)),
        Family::Other => written(raw),
    }
}

/// Returns the module, class or file in which a function stands, without prefixes of an
/// installation and without hashes of a build. Empty where the frame does not tell.
pub(super) fn place<'a>(family: Family, frame: &'a Frame) -> Cow<'a, str> {
    let module = frame.module.as_deref().unwrap_or_default();
    let path = frame.filename.as_deref().or(frame.abs_path.as_deref());
    let path = path.unwrap_or_default();
    match family {
        Family::Rust => rust_place(frame, path),
        Family::Js if !module.is_empty() => js_module(module),
        Family::Js => js_file(path),
        Family::Java => without_digits(java_class(module)),
        Family::DotNet => without_digits(module.split(['+', '`']).next().unwrap_or_default()),
        Family::Ruby => Cow::Borrowed(stem(relative(path))),
        _ if !module.is_empty() => without_digits(module),
        _ => without_digits(stem(file(path))),
    }
}

/// Replaces runs of three and more digits: numbers that generated names carry.
pub(super) fn without_digits(name: &str) -> Cow<'_, str> {
    const RUN_MIN: usize = 3;
    let run = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut out = String::new();
    let mut rest = name;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let len = run(&rest[at..]);
        if len >= RUN_MIN {
            out.push_str(&rest[..at]);
            out.push('#');
        } else if out.is_empty() && !rest[at + len..].contains(|c: char| c.is_ascii_digit()) {
            break;
        } else {
            out.push_str(&rest[..at + len]);
        }
        rest = &rest[at + len..];
    }
    if out.is_empty() {
        return Cow::Borrowed(name);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn written(name: &str) -> Name<'_> {
    if name.is_empty() {
        Name::Anonymous
    } else {
        Name::Written(without_digits(name))
    }
}

/// The last path segment that has a name: closures fold into their parent, generics go.
///
/// Both manglings and the short names of inlined functions give the same: `ledger::b::f::{{closure}}`,
/// `ledger::b::f::<T>::{closure#3}`, `<T as Trait>::f` and `f<T>` are all `f`.
fn rust(raw: &str) -> &str {
    let mut depth = 0usize;
    let mut start = 0;
    let mut end = None; // where the segment's first bracket opens
    let mut last = "";
    let mut previous = b' ';
    for (at, byte) in raw.bytes().enumerate() {
        match byte {
            b'<' | b'{' | b'(' | b'[' => {
                if depth == 0 {
                    end.get_or_insert(at);
                }
                depth += 1;
            }
            b'>' if previous == b'-' => {}
            b'>' | b'}' | b')' | b']' => depth = depth.saturating_sub(1),
            b':' if depth == 0 => {
                last = segment(&raw[start..end.unwrap_or(at)]).unwrap_or(last);
                start = at + 1;
                end = None;
            }
            _ => {}
        }
        previous = byte;
    }
    segment(&raw[start..end.unwrap_or(raw.len())]).unwrap_or(last)
}

/// The type whose method a Rust function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver<'a> {
    /// A method of the type of this name.
    Type(&'a str),
    /// A function of a module.
    Free,
    /// An inlined function: its name came without a path.
    Unknown,
}

/// Reads the receiver of a Rust function; other languages name it in module or function.
pub(super) fn receiver<'a>(family: Family, frame: &'a Frame) -> Receiver<'a> {
    let raw = frame.function.as_deref().unwrap_or_default();
    match family {
        Family::Rust => {}
        // Ruby names the class since version 3.4.
        Family::Ruby => {
            let class = ruby_method(raw).rsplit_once(['#', '.']);
            return class.map_or(Receiver::Unknown, |(class, _)| Receiver::Type(class));
        }
        _ => return Receiver::Free,
    }
    let name = rust(raw);
    let before = raw
        .rfind(name)
        .map_or("", |at| &raw[..at])
        .trim_end_matches("::");
    if before.is_empty() || before.ends_with('}') {
        return Receiver::Unknown;
    }
    let own = match before.find("<impl ") {
        Some(at) => &before[at + "<impl ".len()..],
        None => before.trim_start_matches(['<', '&', '*']),
    };
    let own = own.split_once(" for ").map_or(own, |(_, ty)| ty);
    let own = own.split(" as ").next().unwrap_or_default();
    let own = own.trim_start_matches("dyn ").trim_start_matches("mut ");
    let own = own.split(['<', '>', ' ']).next().unwrap_or_default();
    let ty = own.rsplit("::").next().unwrap_or_default();
    if ty.starts_with(char::is_uppercase) {
        Receiver::Type(ty)
    } else {
        Receiver::Free
    }
}

/// A path segment that names something and is not the hash of the legacy mangling.
fn segment(text: &str) -> Option<&str> {
    let hash = text.len() == 17
        && text.starts_with('h')
        && text[1..].bytes().all(|byte| byte.is_ascii_hexdigit());
    (!text.is_empty() && !hash).then_some(text)
}

fn python(raw: &str) -> Name<'_> {
    match raw {
        "<module>" => Name::Written(Cow::Borrowed(raw)),
        _ => written(
            raw.rsplit('.')
                .find(|part| !part.starts_with('<'))
                .unwrap_or_default(),
        ),
    }
}

/// `Object.it [as ping]` is called `ping`: the property survives every minifier.
fn js<'a>(raw: &'a str, line: Option<&str>) -> Name<'a> {
    let raw = raw.trim_end_matches("/<");
    let alias = raw
        .split_once("[as ")
        .map(|(_, alias)| alias.trim_end_matches(']'));
    let full = alias.unwrap_or(raw);
    let name = full.rsplit(['.', '/', '#']).next().unwrap_or_default();
    let name = ["async ", "new ", "get ", "set ", "static "]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    match name {
        "" | "?" | "<anonymous>" | "anonymous" | "Anonymous function" | "<computed>" | "eval"
        | "global code" | "<" | "exports" => Name::Anonymous,
        name if alias.is_none() && is_minified(name) => Name::Minified,
        name if line.is_some_and(|line| is_parameter(line, name)) => Name::Anonymous,
        name => written(name),
    }
}

/// Minifiers count through the shortest names; people rarely use fewer than three letters.
fn is_minified(name: &str) -> bool {
    match name.len() {
        0..=2 => true,
        3 => {
            let inner = &name.as_bytes()[1..];
            inner.iter().any(|byte| !byte.is_ascii_lowercase())
        }
        _ => false,
    }
}

/// Says whether a line declares `name` as the parameter of a function without a name.
///
/// Source maps name places, not functions: where a closure begins, its parameter may stand, and
/// a runtime that applies the map takes that for the function's name.
fn is_parameter(line: &str, name: &str) -> bool {
    const LINE_BYTES_MAX: usize = 300;
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let names_it = |list: &str| list.split(|c| !is_word(c)).any(|word| word == name);
    if line.len() > LINE_BYTES_MAX {
        return false;
    }
    let arrows = line.match_indices("=>").any(|(at, _)| {
        let before = line[..at].trim_end();
        match before.strip_suffix(')') {
            Some(list) => names_it(&list[list.rfind('(').unwrap_or(0)..]),
            None => {
                let from = before.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
                before.get(from..) == Some(name)
            }
        }
    });
    arrows
        || line.match_indices("function").any(|(at, word)| {
            let list = line[at + word.len()..].trim_start().strip_prefix('(');
            list.is_some_and(|list| names_it(list.split(')').next().unwrap_or_default()))
        })
}

/// `lambda$total$0` and `$anonfun$total$1` stand in `total`.
fn java(raw: &str) -> &str {
    if !raw.contains('$') {
        return raw;
    }
    raw.split('$')
        .find(|part| {
            !matches!(
                *part,
                "" | "lambda" | "anonfun" | "access" | "Lambda" | "default"
            ) && !part.starts_with(|c: char| c.is_ascii_digit())
        })
        .unwrap_or_default()
}

/// The class without the numbers of anonymous classes and without proxies.
fn java_class(module: &str) -> &str {
    let module = module.split("$$").next().unwrap_or_default();
    let module = module.split("_$$_").next().unwrap_or_default();
    let cut = module
        .match_indices('$')
        .find(|(at, _)| module[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    cut.map_or(module, |(at, _)| &module[..at])
}

/// `(*Cart).Total.func1.2` stands in `(*Cart).Total`.
fn go(raw: &str) -> &str {
    let raw = raw.split('[').next().unwrap_or_default();
    let raw = raw
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches("-fm");
    let mut name = raw;
    while let Some((parent, last)) = name.rsplit_once('.') {
        let number = last
            .strip_prefix("func")
            .or_else(|| last.strip_prefix("gowrap"))
            .unwrap_or(last);
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            break;
        }
        name = parent;
    }
    name
}

/// `block (2 levels) in Cart#total` stands in `total`.
fn ruby(raw: &str) -> &str {
    let method = ruby_method(raw);
    method.rsplit(['#', '.']).next().unwrap_or_default()
}

fn ruby_method(raw: &str) -> &str {
    let name = raw.rsplit(" in ").next().unwrap_or_default();
    if name.starts_with('<') || name == "block" {
        ""
    } else {
        name
    }
}

/// `MoveNext` of `Cart+<Total>d__3` and `<Total>b__0` stand in `Total`.
fn dot_net<'a>(raw: &'a str, module: &'a str) -> &'a str {
    let name = raw.split('(').next().unwrap_or_default();
    let name = if name.ends_with("MoveNext") && module.contains('<') {
        module
    } else {
        name
    };
    if let Some((_, inner)) = name.rsplit_once('<')
        && let Some((inner, _)) = inner.split_once('>')
        && !inner.is_empty()
        && !inner.starts_with(char::is_uppercase) | name.contains("__")
    {
        return inner;
    }
    let name = name.split(['`', '[', '<']).next().unwrap_or_default();
    name.rsplit(['.', ' ']).next().unwrap_or_default()
}

fn php(raw: &str) -> &str {
    let raw = raw.strip_prefix("{closure:").unwrap_or(raw);
    let raw = raw.split('(').next().unwrap_or_default();
    let name = raw
        .rsplit(["::", "\\", "->"][usize::from(!raw.contains("::"))])
        .next();
    name.filter(|name| !name.contains("{closure"))
        .unwrap_or_default()
}

/// The file below the crate's `src`, because inlined functions carry no module path;
/// without a file the path segment before the name.
fn rust_place<'a>(frame: &'a Frame, path: &'a str) -> Cow<'a, str> {
    let path = frame.abs_path.as_deref().unwrap_or(path);
    if !path.is_empty() {
        return Cow::Borrowed(
            path.rsplit_once("/src/")
                .map_or_else(|| file(path), |(_, file)| file),
        );
    }
    let function = frame.function.as_deref().unwrap_or_default();
    let name = rust(function);
    let before = function.rfind(name).map_or("", |at| &function[..at]);
    Cow::Borrowed(
        before
            .trim_end_matches("::")
            .rsplit("::")
            .next()
            .unwrap_or_default(),
    )
}

/// Modules are named relative to where the program was started, so only the end is stable.
fn js_module(module: &str) -> Cow<'_, str> {
    let end = module.rsplit([':', '/']).next().unwrap_or_default();
    if !is_generic(end) {
        return without_hash(end);
    }
    let parent = module[..module.len() - end.len()].trim_end_matches([':', '/']);
    let from = parent.rfind([':', '/', '.']).map_or(0, |at| at + 1);
    without_hash(&module[from..])
}

fn js_file(path: &str) -> Cow<'_, str> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let end = stem(file(path));
    if !is_generic(end) {
        return without_hash(end);
    }
    let from = path.trim_end_matches(file(path)).trim_end_matches('/');
    without_hash(&path[from.rfind('/').map_or(0, |at| at + 1)..])
}

/// Files that every directory may have: the directory tells them apart.
fn is_generic(name: &str) -> bool {
    matches!(
        name,
        "index" | "main" | "mod" | "route" | "page" | "layout" | "handler" | "server"
    )
}

/// Drops the parts of a bundle's name that are a content hash: `main.3f2a1b9c`, `chunk-5NRT2K`.
fn without_hash(name: &str) -> Cow<'_, str> {
    const HASH_MIN: usize = 6;
    let is_hash = |part: &str| {
        part.len() >= HASH_MIN
            && part.bytes().any(|byte| byte.is_ascii_digit())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if !name.split(['.', '-', '_', '~']).any(is_hash) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len());
    for part in name
        .split(['.', '-', '_', '~'])
        .filter(|part| !is_hash(part))
    {
        out.push_str(part);
        out.push('.');
    }
    Cow::Owned(out)
}

fn file(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or_default()
}

fn stem(file: &str) -> &str {
    file.rsplit_once('.')
        .map_or(file, |(stem, _)| if stem.is_empty() { file } else { stem })
}

/// A path from the last two directories on.
fn relative(path: &str) -> &str {
    let mut cuts = path.rmatch_indices(['/', '\\']);
    cuts.nth(2).map_or(path, |(at, _)| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(family: Family, function: &str, module: &str) -> String {
        let frame = Frame {
            function: Some(function.into()),
            module: Some(module.into()),
            ..Frame::default()
        };
        match function_name(family, &frame) {
            Name::Written(name) => name.into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn rust_names_of_both_manglings() {
        for raw in [
            "ledger::batch::apply::{{closure}}",
            "ledger::batch::apply::{closure#0}",
            "ledger::batch::apply::<ledger::main::{closure#18}::{closure#0}>",
            "ledger::batch::apply::<ledger::main::{closure#18}>::{closure#0}",
            "<ledger::batch::Step as ledger::Run>::apply",
            "<ledger::batch::Step>::apply::h0123456789abcdef",
            "ledger::batch::{impl#6}::apply",
            "ledger::batch::apply::{async_fn#0}",
            "apply<ledger::main::{closure_env#0}>",
            "apply<fn(i32) -> i32, ()>",
            "ledger::batch::<impl ledger::Run for Step>::apply",
            "apply",
        ] {
            assert_eq!(name(Family::Rust, raw, ""), "apply", "{raw}");
        }
        assert_eq!(
            name(Family::Rust, "{closure#0}<ledger::main>", ""),
            "Anonymous"
        );
        assert_eq!(name(Family::Rust, "{async_fn_env#0}", ""), "Anonymous");
        assert_eq!(name(Family::Rust, "", ""), "Anonymous");
    }

    #[test]
    fn rust_receivers() {
        let check = |raw: &str, expected| {
            let frame = Frame {
                function: Some(raw.into()),
                ..Frame::default()
            };
            assert_eq!(receiver(Family::Rust, &frame), expected, "{raw}");
        };
        check(
            "<ledger::pay::Card as ledger::pay::Pay>::charge",
            Receiver::Type("Card"),
        );
        check(
            "<&mut ledger::Card<T> as ledger::Pay>::charge::{{closure}}",
            Receiver::Type("Card"),
        );
        check("<ledger::pay::Card>::charge", Receiver::Type("Card"));
        check("ledger::pay::Card<T>::charge", Receiver::Type("Card"));
        check(
            "ledger::pay::<impl ledger::Pay for ledger::Cash>::charge",
            Receiver::Type("Cash"),
        );
        check("ledger::pay::{impl#6}::charge", Receiver::Unknown);
        check("ledger::pay::charge", Receiver::Free);
        check("charge<ledger::Card>", Receiver::Unknown);
        check("{closure#0}", Receiver::Unknown);
        check("", Receiver::Unknown);
    }

    #[test]
    fn names_of_other_languages() {
        let check = |family, function: &str, module: &str, expected: &str| {
            assert_eq!(name(family, function, module), expected, "{function}");
        };
        check(Family::Js, "Object.it [as ping]", "", "ping");
        check(Family::Js, "Object.<anonymous>", "", "Anonymous");
        check(Family::Js, "async Promise.all", "", "all");
        check(Family::Js, "Object.B", "", "Minified");
        check(Family::Js, "lt", "", "Minified");
        check(Family::Js, "render/<", "", "render");
        check(Family::Js, "new Cart", "", "Cart");
        check(Family::Js, "get", "", "get");
        check(Family::Js, "e.get total", "", "total");
        check(Family::Python, "<listcomp>", "", "Anonymous");
        check(Family::Python, "Cart.total.<locals>.<lambda>", "", "total");
        check(Family::Python, "rule_5255", "", "rule_#");
        check(Family::Java, "lambda$total$0", "", "total");
        check(Family::Java, "$anonfun$total$1", "", "total");
        check(Family::Go, "(*Cart).Total.func1.2", "", "(*Cart).Total");
        check(Family::Go, "Map[...].func1", "", "Map");
        check(Family::Ruby, "block (2 levels) in Cart#total", "", "total");
        check(Family::DotNet, "MoveNext", "Shop.Cart+<Total>d__3", "Total");
        check(Family::DotNet, "<Total>b__0", "Shop.Cart+<>c", "Total");
        check(
            Family::DotNet,
            "async Task Cart.Total(int id)",
            "Shop.Cart",
            "Total",
        );
        check(Family::Php, "App\\Cart::total", "", "total");
        check(Family::Php, "{closure}", "", "Anonymous");
        check(Family::Php, "{closure:App\\Cart::total():12}", "", "total");
        check(Family::Php, "App\\total", "", "total");
    }

    #[test]
    fn places() {
        let check = |family, module: &str, path: &str, expected: &str| {
            let frame = Frame {
                module: (!module.is_empty()).then(|| module.into()),
                filename: (!path.is_empty()).then(|| path.into()),
                ..Frame::default()
            };
            assert_eq!(place(family, &frame), expected, "{module} {path}");
        };
        check(Family::Rust, "", "/srv/a/src/feeds/mod.rs", "feeds/mod.rs");
        check(Family::Js, "srv.api:carts", "", "carts");
        check(Family::Js, "src.users:index", "", "users:index");
        check(
            Family::Js,
            "",
            "https://x.example/static/app.3f2a1b9c.js?v=2",
            "app.",
        );
        check(Family::Js, "", "/srv/users/index.js", "users/index.js");
        check(
            Family::Java,
            "com.shop.Cart$$EnhancerBySpringCGLIB$$1a2b",
            "",
            "com.shop.Cart",
        );
        check(
            Family::Java,
            "com.shop.Cart$Line$1",
            "",
            "com.shop.Cart$Line",
        );
        check(Family::DotNet, "Shop.Cart+<Total>d__3", "", "Shop.Cart");
        check(
            Family::Ruby,
            "",
            "/srv/shop/app/models/cart.rb",
            "app/models/cart",
        );
        check(
            Family::Python,
            "shop.cart",
            "/srv/shop/cart.py",
            "shop.cart",
        );
        check(Family::Python, "", "cart.py", "cart");
        check(Family::Rust, "", "", "");
    }

    #[test]
    fn generated_numbers() {
        assert_eq!(without_digits("rule_5255_x_12"), "rule_#_x_12");
        assert_eq!(without_digits("utf8_to_16"), "utf8_to_16");
        assert_eq!(without_digits("a1b2"), "a1b2");
    }
}
