//! What `run` comes to, from arguments, environment and settings.

use axum::Router;
use backstop::{Address, App};
use serde_json::{Value, json};

use super::compare::equal;

pub(crate) fn run(case: &Value) -> Result<(), String> {
    let given = &case["run"];
    let settings = given["config"].as_object().cloned().unwrap_or_default();
    let app = App::new(Router::new()).configure(|config| config.load_mapping(settings));
    let run = match given["snippet"].as_str() {
        // The entry point of Flask's page, line by line.
        Some(snippet) => {
            let external = app.config().flag("DEBUG_WITH_APTANA");
            let debug = app.config().debug();
            let use_debugger = !external && (snippet == "page" || debug);
            app.run("0.0.0.0")
                .debug(debug)
                .use_debugger(use_debugger)
                .use_reloader(use_debugger)
        }
        None => with_arguments(app, &given["args"]),
    };
    let env = &given["env"];
    let plan = run.plan(|name| env[name].as_str().map(str::to_owned));
    let expected = &case["expected"];
    equal("host", &json!(plan.host), &expected["host"])?;
    equal("port", &json!(plan.port), &expected["port"])?;
    equal("debug", &json!(plan.debug), &expected["app_debug"])?;
    let options = &expected["options"];
    equal(
        "debugger",
        &json!(plan.use_debugger),
        &options["use_debugger"],
    )?;
    equal(
        "reloader",
        &json!(plan.use_reloader),
        &options["use_reloader"],
    )
}

fn with_arguments(app: App, arguments: &Value) -> backstop::Run {
    let port = arguments["port"].as_u64();
    let address = Address {
        host: arguments["host"].as_str().map(str::to_owned),
        port: port.and_then(|port| u16::try_from(port).ok()),
    };
    let mut run = app.run(address);
    if let Some(on) = arguments["debug"].as_bool() {
        run = run.debug(on);
    }
    if let Some(on) = arguments["use_debugger"].as_bool() {
        run = run.use_debugger(on);
    }
    if let Some(on) = arguments["use_reloader"].as_bool() {
        run = run.use_reloader(on);
    }
    run
}
