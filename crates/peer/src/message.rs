//! A message of any dialect, for code that is generic over none.

use std::{any::Any, fmt, sync::Arc};

/// A message in its dialect's own type. Cloning shares it.
#[derive(Clone)]
pub struct AnyMessage(Arc<dyn Erased>);

trait Erased: Send + Sync + fmt::Debug {
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<M: fmt::Debug + Send + Sync + 'static> Erased for M {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl AnyMessage {
    /// Forgets the type.
    #[must_use]
    pub fn new<M: fmt::Debug + Send + Sync + 'static>(message: M) -> Self {
        Self(Arc::new(message))
    }

    /// The message, if it is of this dialect.
    #[must_use]
    pub fn get<M: 'static>(&self) -> Option<&M> {
        (*self.0).as_any().downcast_ref()
    }

    /// The message itself, if it is of this dialect; copied if others hold it too.
    #[must_use]
    pub fn take<M: Clone + Send + Sync + 'static>(self) -> Option<M> {
        self.0.into_any().downcast().ok().map(Arc::unwrap_or_clone)
    }
}

impl fmt::Debug for AnyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_type_comes_back() {
        let message = AnyMessage::new(7_u32);
        assert_eq!((message.get::<u32>(), message.get::<u64>()), (Some(&7), None));
        assert_eq!(format!("{message:?}"), "7");
        let second = message.clone();
        assert_eq!((message.take::<u32>(), second.take::<String>()), (Some(7), None));
    }
}
