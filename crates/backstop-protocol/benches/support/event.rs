//! An event like that of a Flask application: 18 frames with source lines and variables.

use serde_json::{Value, json};

pub(crate) fn event() -> Vec<u8> {
    let lines = |from: usize| -> Vec<String> {
        (from..from + 5)
            .map(|line| {
                format!("        result_{line} = self.process_order(order, quantity={line})  # ☃")
            })
            .collect()
    };
    let frames: Vec<Value> = (0..18)
        .map(|index| {
            json!({
                "filename": format!("shop/module_{index}.py"),
                "abs_path": format!("/srv/shop/lib/python3.11/site-packages/shop/module_{index}.py"),
                "function": format!("process_order_{index}"),
                "module": format!("shop.module_{index}"),
                "lineno": 100 + index,
                "pre_context": lines(index),
                "context_line": "            return total / len(order.customers)",
                "post_context": lines(index + 6),
                "vars": {
                    "self": format!("<shop.module_{index}.Orders object at 0x7f3a8c0b5d{index:02x}>"),
                    "order": {"id": "'A-1234'", "lines": ["'tea'", "'coffee \"strong\"'"], "total": "Decimal('12.50')"},
                    "quantity": index.to_string(),
                    "customers": [],
                    "request": "<Request 'http://shop.example/checkout?order=A-1234' [POST]>",
                    "exc_info": "None",
                    "kwargs": {"timeout": "30", "retry": "True"},
                },
                "in_app": index % 3 == 0,
            })
        })
        .collect();
    let event = json!({
        "event_id": "9ec79c33ec9942ab8353589fcb2e04dc",
        "level": "error",
        "platform": "python",
        "timestamp": "2026-11-22T09:00:00.123456Z",
        "release": "shop@1.4.2",
        "environment": "production",
        "server_name": "web-1.shop.example",
        "transaction": "checkout",
        "exception": {"values": [{
            "type": "ZeroDivisionError",
            "value": "division by zero",
            "module": null,
            "mechanism": {"type": "flask", "handled": false},
            "stacktrace": {"frames": frames},
        }]},
        "request": {"url": "http://shop.example/checkout", "method": "POST",
            "headers": {"Host": "shop.example", "User-Agent": "Mozilla/5.0", "Accept": "*/*"}},
        "breadcrumbs": {"values": (0..10).map(|index| json!({
            "timestamp": "2026-11-22T09:00:00.123456Z", "category": "query", "type": "default",
            "message": format!("SELECT id, total FROM orders WHERE customer = {index}"), "level": "info",
            "data": {"db.params": [index]}})).collect::<Vec<_>>()},
        "contexts": {"runtime": {"name": "CPython", "version": "3.11.2"}, "trace": {"trace_id": "a".repeat(32)}},
        "modules": (0..60).map(|index| (format!("package-{index}"), json!("1.2.3"))).collect::<serde_json::Map<_, _>>(),
        "extra": {"sys.argv": ["app.py"]},
        "sdk": {"name": "sentry.python.flask", "version": "2.75.0", "packages": [{"name": "pypi:sentry-sdk", "version": "2.75.0"}]},
    });
    event.to_string().into_bytes()
}
