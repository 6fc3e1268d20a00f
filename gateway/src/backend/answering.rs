//! How a model's answers are held and read: the format of its tool calls, the marks of its
//! thoughts, and the grammars compiled for it. Found once, when the model is loaded; its adapters
//! share it.

use std::sync::{Arc, OnceLock};

use text::TextModel;
use text::grammar::{GrammarError, Grammars};
use text::tools::{Format, Thoughts};

/// See the module.
pub struct Answering {
    /// How calls are written; `None`: the template knows no tools.
    pub format: Option<&'static Format>,
    /// How it thinks; `None`: it does not.
    pub thoughts: Option<Thoughts>,
    grammars: Arc<Lazy>,
}

/// What grammars are compiled with. It takes some 100 ms to make for a large vocabulary, which no
/// start should wait for.
struct Lazy {
    text: Arc<TextModel>,
    ends: Vec<u32>,
    made: OnceLock<Result<Grammars, GrammarError>>,
}

impl Lazy {
    /// Makes it, or waits for whoever makes it now.
    fn get(&self) -> Result<&Grammars, GrammarError> {
        let made = self.made.get_or_init(|| {
            let grammars = Grammars::new(&self.text, &self.ends)?;
            Ok(grammars.with_forced(Arc::clone(&self.text)))
        });
        made.as_ref().map_err(Clone::clone)
    }
}

impl Answering {
    /// For a model whose sequences end with `ends`. `format` is the operator's word; without it
    /// the chat template tells.
    #[must_use]
    pub fn new(text: &Arc<TextModel>, ends: &[u32], format: Option<&'static Format>) -> Self {
        let format = format.or_else(|| Format::of(text));
        let thoughts = Thoughts::of(text, format);
        let (text, ends, made) = (Arc::clone(text), ends.to_vec(), OnceLock::new());
        let grammars = Arc::new(Lazy { text, ends, made });
        let early = Arc::clone(&grammars);
        // Without a thread for it the first request that needs it makes it.
        let named = std::thread::Builder::new().name("vocabulary".to_owned());
        let _ = named.spawn(move || early.get().map(drop));
        Self { format, thoughts, grammars }
    }

    /// Its template knows no tools: prompts say what they are.
    #[must_use]
    pub fn tells_tools(&self) -> bool {
        self.format.is_none()
    }

    /// Compiles grammars for it.
    ///
    /// # Errors
    /// Why its answers cannot be held to any.
    pub fn grammars(&self) -> Result<&Grammars, GrammarError> {
        self.grammars.get()
    }
}
