//! The HTTP server: bounded in connections, questions at once, sizes and time.

mod answers;
mod problem;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Query, State},
    http::{header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tipward_chain::{
    ArchiveReader,
    sync::Control,
    wire::{bitcoin::Network, bytes::Bytes},
};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    keys::Cursor,
    view::{Reader, View},
};
use problem::Problem;

/// How many connections may be open; others wait to be accepted.
const MAX_CONNECTIONS: usize = 128;
/// How many questions may be answered at once, before others are told to come again.
const MAX_QUESTIONS: usize = 32;
/// An answer that is larger, in bytes, is one of so many until its client has it.
const LARGE: usize = 1 << 20;
const MAX_LARGE: usize = 8;
/// How long a client may take for the head of a request, and be silent between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take to make.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may be open, whatever goes over it.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// How long answers under way may take when the server is to end.
const GOODBYE: Duration = Duration::from_secs(5);
/// How large the head of a request may be, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// What answers are made from.
pub struct Api {
    /// The index.
    pub reader: Reader,
    /// The blocks.
    pub archive: ArchiveReader,
    /// The network that both are of.
    pub network: &'static Network,
    /// Where the sync is.
    pub control: Control,
    /// What operators watch.
    pub metrics: PrometheusHandle,
}

struct Shared {
    api: Api,
    questions: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

type Asked = State<Arc<Shared>>;
type Text = Valid<Path<String>>;
type Parameters = Valid<Query<HashMap<String, String>>>;

/// Serves until `stop` is there, and a moment longer to who is being answered.
pub async fn serve(listener: TcpListener, api: Api, stop: impl Future<Output = ()>) {
    let (router, open) = (router(api), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    let (graceful, mut stop) = (GracefulShutdown::new(), std::pin::pin!(stop));
    loop {
        let accept = async {
            let place = open.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: some will be closed.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // How a client leaves is its own affair.
            timeout(CONNECTION_LIFE, connection).await.ok();
            drop(place);
        });
    }
    timeout(GOODBYE, graceful.shutdown()).await.ok();
}

fn router(api: Api) -> Router {
    let [questions, large] = [MAX_QUESTIONS, MAX_LARGE].map(|most| Arc::new(Semaphore::new(most)));
    let shared = Arc::new(Shared { api, questions, large });
    Router::new()
        .route("/tip", get(|asked: Asked| answer(asked, answers::tip)))
        .route("/block/{block}", get(block))
        .route("/tx/{txid}", get(transaction))
        .route("/tx/{txid}/proof", get(proof))
        .route("/script/{hash}/history", get(history))
        .route("/script/{hash}/utxos", get(utxos))
        .route("/status", get(|asked: Asked| work(asked, |api| Ok(Body::Json(answers::status(api))))))
        .route("/metrics", get(|asked: Asked| work(asked, |api| Ok(Body::Text(api.metrics.render())))))
        .fallback(async || Problem::not_found("no such route: see the README for those there are".to_owned()))
        .method_not_allowed_fallback(async || Problem::method())
        .with_state(shared)
}

async fn block(asked: Asked, Valid(Path(block)): Text, Valid(Query(parameters)): Parameters) -> Response {
    answer(asked, move |api, view, cursor| answers::block(api, view, cursor, &block, &parameters)).await
}

async fn transaction(
    asked: Asked,
    Valid(Path(txid)): Text,
    Valid(Query(parameters)): Parameters,
) -> Response {
    answer_with(asked, move |api, view, cursor| answers::transaction(api, view, cursor, &txid, &parameters))
        .await
}

async fn proof(asked: Asked, Valid(Path(txid)): Text) -> Response {
    answer(asked, move |api, view, cursor| answers::proof(api, view, cursor, &txid)).await
}

async fn history(asked: Asked, Valid(Path(hash)): Text, Valid(Query(parameters)): Parameters) -> Response {
    answer(asked, move |_, view, cursor| answers::history(view, cursor, &hash, &parameters)).await
}

async fn utxos(asked: Asked, Valid(Path(hash)): Text, Valid(Query(parameters)): Parameters) -> Response {
    answer(asked, move |_, view, cursor| answers::utxos(view, cursor, &hash, &parameters)).await
}

/// What was sent, where it can be read; else the answer is a [`Problem`].
struct Valid<T>(T);

impl<S: Sync, T: FromRequestParts<S, Rejection: fmt::Display>> FromRequestParts<S> for Valid<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        T::from_request_parts(parts, state)
            .await
            .map(Self)
            .map_err(|problem| Problem::bad(problem.to_string()))
    }
}

/// What an answer may be.
pub(crate) enum Body {
    Json(Value),
    Text(String),
    Bytes(Vec<u8>),
}

impl Body {
    /// What it is, and its bytes.
    fn into_bytes(self) -> (&'static str, Vec<u8>) {
        match self {
            Self::Json(value) => ("application/json", value.to_string().into_bytes()),
            Self::Text(text) => ("text/plain; version=0.0.4", text.into_bytes()),
            Self::Bytes(bytes) => ("application/octet-stream", bytes),
        }
    }
}

/// The bytes of a large answer, which keep its place until they were written or nobody wants them any more.
struct Large {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Answers from one state of the index.
async fn answer(
    asked: Asked,
    make: impl FnOnce(&Api, &View, Cursor) -> Result<Value, Problem> + Send + 'static,
) -> Response {
    answer_with(asked, |api, view, cursor| make(api, view, cursor).map(Body::Json)).await
}

/// Answers from one state of the index with what may be no JSON.
async fn answer_with(
    asked: Asked,
    make: impl FnOnce(&Api, &View, Cursor) -> Result<Body, Problem> + Send + 'static,
) -> Response {
    work(asked, |api| {
        let view = api.reader.view()?;
        let cursor = view.cursor()?.ok_or_else(|| Problem::busy("nothing is indexed yet: come again"))?;
        make(api, &view, cursor)
    })
    .await
}

/// Answers on a thread that may wait for the disk.
async fn work(
    State(shared): Asked,
    make: impl FnOnce(&Api) -> Result<Body, Problem> + Send + 'static,
) -> Response {
    let Ok(place) = shared.questions.clone().try_acquire_owned() else {
        return Problem::busy("too many questions at once: come again").into_response();
    };
    let answer = spawn_blocking(move || {
        let _place = place;
        let (kind, bytes) = make(&shared.api)?.into_bytes();
        let bytes = if bytes.len() <= LARGE {
            Bytes::from(bytes)
        } else {
            let place = shared.large.clone().try_acquire_owned();
            let _place = place.map_err(|_| Problem::busy("too many large answers at once: come again"))?;
            Bytes::from_owner(Large { bytes, _place })
        };
        Ok::<_, Problem>(([(CONTENT_TYPE, kind)], bytes))
    });
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(_)) => Problem::internal("the answer could not be made".to_owned()).into_response(),
        Err(_) => Problem::busy("the answer takes too long").into_response(),
    }
}
