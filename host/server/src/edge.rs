//! The last step before the service: refuse what no service should see, count what goes in.
//!
//! It is hyper's view of the service. What follows from bytes alone was settled by `gate`; here are the
//! checks on a parsed request, which on HTTP/2 is all of them (RFC 9113, 8.3; P-E4, P-E5).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::body::{BoxError, Payload, RequestBody, RequestGuard, ResponseBody, Unread, discard};
use crate::error::{EdgeError, ErrorResponder};
use crate::framing::{parse_authority, same_host};
use crate::gauges::Gauges;
use crate::info::ConnectionInfo;
use crate::limits::Limits;
use crate::progress::{Progress, Protocol};

/// The service behind a listener, of whatever type.
pub(crate) type Handler = Arc<dyn Fn(Request<RequestBody>) -> Answer + Send + Sync>;

type Answer = Pin<Box<dyn Future<Output = Response<Payload>> + Send>>;

/// What a connection calls for each of its requests.
pub(crate) struct Edge {
    pub(crate) handler: Handler,
    pub(crate) errors: ErrorResponder,
    pub(crate) limits: Arc<Limits>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) info: ConnectionInfo,
    /// Of what outlives a request.
    pub(crate) tracker: TaskTracker,
}

/// Boxes a service at the seam, so that nothing behind it is generic over it.
pub(crate) fn handler<S, B>(service: S) -> Handler
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Arc::new(move |request: Request<RequestBody>| -> Answer {
        let mut service = service.clone();
        Box::pin(async move {
            // The clone that became ready is the one that is called.
            let ready = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
            let answer = match ready {
                Ok(()) => service.call(request).await,
                Err(never) => match never {},
            };
            match answer {
                Ok(response) => response.map(|body| Payload::new(body.map_err(Into::into))),
                Err(never) => match never {},
            }
        })
    })
}

impl hyper::service::Service<Request<Incoming>> for Edge {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let rejection = self.progress.request_began();
        let guard = RequestGuard::new(Arc::clone(&self.progress), Arc::clone(&self.gauges));
        let verdict = match rejection {
            Some(error) => Err(error),
            None => check(&request, self.progress.protocol(), &self.limits),
        };
        let is_http2 = self.progress.protocol() == Protocol::Http2;
        if let Err(error) = verdict {
            let response = self.refuse(error).map(|body| ResponseBody::new(body, guard));
            if is_http2 && !request.body().is_end_stream() {
                self.tracker.spawn(discard(request.into_body()));
            }
            return Box::pin(std::future::ready(Ok(response)));
        }
        let unread = (is_http2 && !request.body().is_end_stream()).then(Unread::default);
        let mut request = request.map(|incoming| RequestBody::new(incoming, &self.limits, unread.clone()));
        request.extensions_mut().insert(self.info.clone());
        let (answer, tracker) = ((self.handler)(request), self.tracker.clone());
        Box::pin(async move {
            let response = answer.await.map(|body| ResponseBody::new(body, guard));
            if let Some(left) = unread.and_then(|unread| unread.take()) {
                tracker.spawn(discard(left));
            }
            Ok(response)
        })
    }
}

impl Edge {
    fn refuse(&self, error: EdgeError) -> Response<Payload> {
        tracing::debug!(connection = self.info.id, code = error.code(), "request refused");
        self.gauges.request_rejected(error);
        let mut response = (self.errors)(error).map(|text| Payload::new(Full::new(text).map_err(BoxError::from)));
        if self.progress.protocol() == Protocol::Http1 {
            // What follows a refused request on the connection has no certain beginning.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn check<B>(request: &Request<B>, protocol: Protocol, limits: &Limits) -> Result<(), EdgeError> {
    if protocol == Protocol::Http2 {
        check_http2_target(request, limits)?;
    }
    // Both protocols refuse a length that is no number before this.
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.body_bytes) {
        return Err(EdgeError::BodyTooLarge { limit: limits.body_bytes });
    }
    Ok(())
}

fn check_http2_target<B>(request: &Request<B>, limits: &Limits) -> Result<(), EdgeError> {
    if request.method() == Method::CONNECT {
        return Err(EdgeError::NotImplemented("CONNECT is not served"));
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.uri_bytes {
        return Err(EdgeError::UriTooLong { limit: limits.uri_bytes });
    }
    if !(target.starts_with('/') || target == "*" && request.method() == Method::OPTIONS) {
        return Err(EdgeError::Malformed("the target is malformed"));
    }
    if request.headers().len() > limits.headers {
        return Err(EdgeError::HeadersTooLarge { limit: limits.header_bytes });
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().map(|value| parse_authority(value.as_bytes())).transpose()?;
    if hosts.next().is_some() {
        return Err(EdgeError::Malformed("there is more than one host"));
    }
    match (request.uri().authority(), host) {
        (Some(authority), host) => same_host(authority, host.as_ref()),
        (None, Some(_)) => Ok(()),
        (None, None) => Err(EdgeError::Malformed("the host is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http2(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(), EdgeError> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), Protocol::Http2, &Limits::default())
    }

    #[test]
    fn an_http2_request_names_one_host_and_one_path() {
        // P-E4: downgrade desync begins with these.
        assert_eq!(http2("GET", "https://a.example/x?y", &[]), Ok(()));
        assert_eq!(http2("GET", "https://a.example/", &[("host", "A.example")]), Ok(()));
        assert_eq!(http2("GET", "/", &[("host", "a.example")]), Ok(()));
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        let cases: [Case<'_>; 5] = [
            ("GET", "/", &[]),
            ("GET", "https://a.example/", &[("host", "b.example")]),
            ("GET", "https://a.example/", &[("host", "a.example"), ("host", "a.example")]),
            ("GET", "https://me@a.example/", &[]),
            ("GET", "*", &[("host", "a.example")]),
        ];
        for (method, uri, fields) in cases {
            assert!(matches!(http2(method, uri, fields), Err(EdgeError::Malformed(_))), "{method} {uri} {fields:?}");
        }
        assert_eq!(http2("OPTIONS", "*", &[("host", "a.example")]), Ok(()));
        assert!(matches!(http2("CONNECT", "a.example:443", &[]), Err(EdgeError::NotImplemented(_))));
    }

    #[test]
    fn sizes_are_refused_before_the_service() {
        // P-E5.
        let long = format!("https://a.example/{}", "a".repeat(9000));
        assert_eq!(http2("GET", &long, &[]), Err(EdgeError::UriTooLong { limit: 8192 }));
        let limit = Limits::default().body_bytes;
        let too_long = (limit + 1).to_string();
        let length = [("content-length", too_long.as_str())];
        assert_eq!(http2("POST", "https://a.example/", &length), Err(EdgeError::BodyTooLarge { limit }));
    }
}
