//! What is wrong with a question, or with us.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tipward_chain::{ProofError, StoreError};

use crate::index::IndexError;

/// One line for who asked, and the status. In JSON: `{"error": ".."}`.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    line: String,
}

impl Problem {
    pub(crate) fn bad(line: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, line }
    }

    pub(crate) fn not_found(line: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, line }
    }

    pub(crate) fn method() -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, line: "only GET is answered".to_owned() }
    }

    pub(crate) fn too_large(line: String) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, line }
    }

    pub(crate) fn busy(line: &str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, line: line.to_owned() }
    }

    /// Ours, so the log has it too.
    pub(crate) fn internal(line: String) -> Self {
        tracing::error!("{line}");
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, line }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.line}))).into_response()
    }
}

impl From<IndexError> for Problem {
    fn from(error: IndexError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::internal(format!("the archive: {error}"))
    }
}

impl From<ProofError> for Problem {
    fn from(error: ProofError) -> Self {
        Self::internal(error.to_string())
    }
}
