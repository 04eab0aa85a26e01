"""The two bugs that every client reports."""


def connect(host, port):
    attempts = 3
    raise TimeoutError(f"no answer from {host}:{port} after {attempts} attempts")


def reserve(sku):
    backend = "inventory-7"
    try:
        connect(backend, 8443)
    except TimeoutError as error:
        raise ConnectionRefusedError(f"{backend} refuses to reserve") from error


def split_bill(total_cents, guests):
    currency = "EUR"
    tip_cents = 150
    share = (total_cents + tip_cents) // guests
    return f"{share} {currency}"


def add_views(app):
    @app.route("/reserve")
    def reserve_view():
        return reserve("teapot")

    @app.route("/split")
    def split_view():
        return split_bill(4200, 0)

    return app
