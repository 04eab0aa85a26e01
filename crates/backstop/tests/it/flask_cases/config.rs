//! The settings of a case: sources loaded one after the other, then asked.

use backstop::config::{Config, ConfigErrorKind, Format, Namespace};
use serde_json::{Value, json};

use super::compare::equal;
use super::errors::{list, text};

pub(crate) fn run(case: &Value) -> Result<(), String> {
    let expected = &case["expected"];
    let vars = &case["create_env"];
    let mut config = Config::at_start(|name| vars[name].as_str().map(str::to_owned));
    let mut error = None;
    for source in list(&case["sources"]) {
        if let Err(failed) = load(&mut config, source) {
            error = Some(failed);
            break;
        }
    }
    let class = error.as_ref().map(|error| python_class(error.kind()));
    let wanted = expected["error"]["class"].as_str().map(|class| {
        // Parsers have their own classes; all of them mean that the text is malformed.
        match class {
            "FileNotFoundError" | "RuntimeError" | "TypeError" | "IsADirectoryError" => class,
            _ => "malformed",
        }
    });
    equal("error", &class, &wanted)?;
    equal("debug", &json!(config.debug()), &expected["debug"])?;
    for (key, wanted) in expected["values"].as_object().into_iter().flatten() {
        let known = config.iter().find(|(known, _)| known == key);
        let ours = match known {
            None => json!({"present": false}),
            Some((_, value)) => json!({"present": true, "value": value}),
        };
        let wanted = if let Some(python) = wanted["value"]["not_json"].as_str() {
            json!({"present": true, "value": text_of_date(python)})
        } else {
            wanted.clone()
        };
        equal(key, &ours, &wanted)?;
    }
    if let Some(namespace) = case.get("namespace") {
        let form = Namespace {
            lower_case: namespace["lowercase"].as_bool().unwrap_or(true),
            trim: namespace["trim_namespace"].as_bool().unwrap_or(true),
        };
        let ours = Value::Object(config.namespace_with(text(&namespace["prefix"]), form));
        equal("namespace", &ours, &expected["namespace"])?;
    }
    Ok(())
}

fn load(config: &mut Config, source: &Value) -> Result<(), backstop::config::ConfigError> {
    match text(&source["kind"]) {
        "file" if source["missing"] == true => {
            let path = std::env::temp_dir().join("backstop-no-such-file.yaml");
            if source["silent"] == true {
                config.load_file_if_exists(path).map(|_| ())
            } else {
                config.load_file(path)
            }
        }
        "file" => {
            let format = match text(&source["format"]) {
                "yaml" => Format::Yaml,
                "toml" => Format::Toml,
                _ => Format::Json,
            };
            config.load_str(text(&source["text"]), format)
        }
        "env" => {
            let prefix = source["prefix"].as_str().unwrap_or("FLASK");
            let vars = source["env"].as_object().into_iter().flatten();
            config.load_vars(
                prefix,
                vars.map(|(name, value)| (name.clone(), text(value).to_owned())),
            );
            Ok(())
        }
        "object" => config.load_object(&source["attrs"]),
        "mapping" => {
            let values = source["values"].as_object().into_iter().flatten();
            config.load_mapping(values.map(|(key, value)| (key.clone(), value.clone())));
            Ok(())
        }
        "envvar" => config.load_envvar(text(&source["variable"])),
        other => panic!("no source {other}"),
    }
}

fn python_class(kind: ConfigErrorKind) -> &'static str {
    match kind {
        ConfigErrorKind::Missing => "FileNotFoundError",
        ConfigErrorKind::Variable => "RuntimeError",
        ConfigErrorKind::Shape => "TypeError",
        _ => "malformed",
    }
}

/// JSON has no dates: `datetime.date(2024, 1, 2)` is the text `2024-01-02`.
fn text_of_date(python: &str) -> String {
    let numbers: Vec<u32> = python
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    match numbers[..] {
        [year, month, day, ..] => format!("{year:04}-{month:02}-{day:02}"),
        _ => python.to_owned(),
    }
}
