//! Whether the routes of a blueprint know a request's method.
//!
//! axum tells a route of its own for another method only when it is called, and then hooks have
//! run. In Flask a 405 is found before, and no blueprint has a part in it.
//!
//! `OPTIONS` counts as known: in Flask every route answers it, and here a layer of the user's may, as
//! those for CORS do.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use http::{Method, StatusCode};
use tower::{Layer, Service, ServiceExt};

/// The routes of a blueprint without what they do.
#[derive(Clone)]
pub(crate) struct Methods(Router);

impl Methods {
    /// Takes the addresses and methods of routes.
    pub(crate) fn of(routes: Router) -> Self {
        let refused = async || StatusCode::METHOD_NOT_ALLOWED;
        // Only axum's own answer to other methods becomes the refusal: a fallback of the user's
        // is a view.
        Self(routes.layer(Knows).method_not_allowed_fallback(refused))
    }

    /// Tells whether a route that matches by its address refuses the method.
    pub(crate) fn refuse(&self, request: &Request) -> bool {
        if request.method() == Method::OPTIONS {
            return false;
        }
        let mut asked = Request::new(Body::empty());
        *asked.method_mut() = request.method().clone();
        *asked.uri_mut() = request.uri().clone();
        let answer = pin!(self.0.clone().oneshot(asked));
        // Nothing in there waits.
        let mut cx = Context::from_waker(Waker::noop());
        match answer.poll(&mut cx) {
            Poll::Ready(Ok(answer)) => answer.status() == StatusCode::METHOD_NOT_ALLOWED,
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => false,
        }
    }
}

/// Takes the place of every route.
#[derive(Clone)]
struct Knows;

impl Layer<Route> for Knows {
    type Service = Known;

    fn layer(&self, _: Route) -> Known {
        Known
    }
}

#[derive(Clone)]
struct Known;

impl Service<Request> for Known {
    type Response = Response;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        std::future::ready(Ok(StatusCode::NO_CONTENT.into_response()))
    }
}
