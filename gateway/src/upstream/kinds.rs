//! The kinds of providers, as data: where each answers, what it is shown, which dialects it speaks
//! at which paths. `hearth providers` prints this table; a kind that speaks a dialect of ours is a
//! row here and no code. Which models they have stands beside it, in `models.toml`.
//!
//! Sources: each provider's own API reference, as linked in its row.

use govern::policy::Label;
use wire::Dialect;
use wire::openai::Flavor;
use wire::responses::Seals;

/// What a provider is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`, where there is a key.
    Bearer,
    /// The key in this header.
    Header(&'static str),
    /// The key signs the request: AWS's signature, version 4.
    Aws,
    /// The key is a service account's file, which is changed for a token.
    Google,
}

/// A kind of provider.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name in `kind = ".."`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Where it answers, version and all; `{region}` and `{project}` are filled in. Empty: the
    /// operator says.
    pub base_url: &'static str,
    /// What it is shown.
    pub auth: Auth,
    /// Where its key usually stands.
    pub key_env: &'static str,
    /// Dialects and paths behind the base URL, the one that others are translated to first;
    /// `{model}` is filled in.
    pub speaks: &'static [(Dialect, &'static str)],
    /// Its flavor of chat.
    pub flavor: Flavor,
    /// Headers that every request carries.
    pub headers: &'static [(&'static str, &'static str)],
    /// What it calls fields of OpenAI's chat that it refuses under their names; `None`: it has no
    /// word for it, and needs none.
    pub renames: &'static [(&'static str, Option<&'static str>)],
    /// The most secret label that it may see where `max_label` says nothing.
    pub max_label: Label,
    /// Its API reference.
    pub docs: &'static str,
}

use Dialect::{
    Chat, Cohere, Completions, Converse, Embeddings, Gemini, Messages, Rerank, Responses, Score,
};

const OPENAI: &[(Dialect, &str)] = &[
    (Chat, "/chat/completions"),
    (Responses, "/responses"),
    (Completions, "/completions"),
    (Embeddings, "/embeddings"),
];
const CHAT: &[(Dialect, &str)] = &[(Chat, "/chat/completions"), (Embeddings, "/embeddings")];
const CHAT_ONLY: &[(Dialect, &str)] = &[(Chat, "/chat/completions")];
const ENGINE: &[(Dialect, &str)] = &[
    (Chat, "/chat/completions"),
    (Completions, "/completions"),
    (Responses, "/responses"),
    (Messages, "/messages"),
    (Embeddings, "/embeddings"),
    (Rerank, "/rerank"),
    (Score, "/score"),
];
const LLAMA: &[(Dialect, &str)] = &[
    (Chat, "/chat/completions"),
    (Completions, "/completions"),
    (Messages, "/messages"),
    (Embeddings, "/embeddings"),
    (Rerank, "/rerank"),
];
const RANKING: &[(Dialect, &str)] = &[
    (Chat, "/chat/completions"),
    (Completions, "/completions"),
    (Embeddings, "/embeddings"),
    (Rerank, "/rerank"),
];
const TEXTS: &[(Dialect, &str)] =
    &[(Chat, "/chat/completions"), (Completions, "/completions"), (Embeddings, "/embeddings")];
const FIREWORKS: &[(Dialect, &str)] = &[
    (Chat, "/chat/completions"),
    (Completions, "/completions"),
    (Responses, "/responses"),
    (Messages, "/messages"),
    (Embeddings, "/embeddings"),
];
const GOOGLE: &[(Dialect, &str)] = &[(Gemini, "/models/{model}")];

/// What a provider that speaks OpenAI's chat has in common with the others.
const PLAIN: Kind = Kind {
    name: "compatible",
    title: "Any server that speaks OpenAI's chat",
    base_url: "",
    auth: Auth::Bearer,
    key_env: "",
    speaks: CHAT,
    flavor: Flavor::Plain,
    headers: &[],
    renames: &[],
    max_label: Label::Internal,
    docs: "https://platform.openai.com/docs/api-reference/chat",
};

/// All kinds.
pub static KINDS: &[Kind] = &[
    Kind {
        name: "openai",
        title: "OpenAI",
        base_url: "https://api.openai.com/v1",
        key_env: "OPENAI_API_KEY",
        speaks: OPENAI,
        flavor: Flavor::OpenAi,
        ..PLAIN
    },
    Kind {
        name: "azure",
        title: "Azure OpenAI (base_url = https://RESOURCE.openai.azure.com/openai/v1)",
        auth: Auth::Header("api-key"),
        key_env: "AZURE_OPENAI_API_KEY",
        speaks: OPENAI,
        flavor: Flavor::OpenAi,
        docs: "https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",
        ..PLAIN
    },
    Kind {
        name: "anthropic",
        title: "Anthropic",
        base_url: "https://api.anthropic.com/v1",
        auth: Auth::Header("x-api-key"),
        key_env: "ANTHROPIC_API_KEY",
        speaks: &[(Messages, "/messages")],
        headers: &[("anthropic-version", "2023-06-01")],
        docs: "https://platform.claude.com/docs/en/api/messages",
        ..PLAIN
    },
    Kind {
        name: "gemini",
        title: "Google Gemini",
        base_url: "https://generativelanguage.googleapis.com/v1beta",
        auth: Auth::Header("x-goog-api-key"),
        key_env: "GEMINI_API_KEY",
        speaks: GOOGLE,
        docs: "https://ai.google.dev/api/generate-content",
        ..PLAIN
    },
    Kind {
        name: "vertex",
        title: "Google Vertex AI (key = file:SERVICE_ACCOUNT.json, project, region)",
        base_url: "https://{region}-aiplatform.googleapis.com/v1/projects/{project}/locations/\
                   {region}/publishers/google",
        auth: Auth::Google,
        key_env: "GOOGLE_APPLICATION_CREDENTIALS",
        speaks: GOOGLE,
        docs: "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference",
        ..PLAIN
    },
    Kind {
        name: "bedrock",
        title: "Amazon Bedrock (key, secret_key, region)",
        base_url: "https://bedrock-runtime.{region}.amazonaws.com",
        auth: Auth::Aws,
        key_env: "AWS_ACCESS_KEY_ID",
        speaks: &[(Converse, "/model/{model}")],
        docs: "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
        ..PLAIN
    },
    Kind {
        name: "mistral",
        title: "Mistral AI",
        base_url: "https://api.mistral.ai/v1",
        key_env: "MISTRAL_API_KEY",
        // It refuses what it does not know, and tells what was used unasked.
        renames: &[
            ("stream_options", None),
            ("user", None),
            ("max_completion_tokens", Some("max_tokens")),
            ("seed", Some("random_seed")),
        ],
        docs: "https://docs.mistral.ai/api",
        ..PLAIN
    },
    Kind {
        name: "cohere",
        title: "Cohere: chats and embeddings through its compatibility API, ranking in its own",
        base_url: "https://api.cohere.ai",
        key_env: "CO_API_KEY",
        speaks: &[
            (Chat, "/compatibility/v1/chat/completions"),
            (Embeddings, "/compatibility/v1/embeddings"),
            (Cohere, "/v2/rerank"),
        ],
        docs: "https://docs.cohere.com/docs/compatibility-api",
        ..PLAIN
    },
    Kind {
        name: "jina",
        title: "Jina AI",
        base_url: "https://api.jina.ai/v1",
        key_env: "JINA_API_KEY",
        speaks: &[(Embeddings, "/embeddings"), (Rerank, "/rerank")],
        docs: "https://api.jina.ai/docs",
        ..PLAIN
    },
    Kind {
        name: "groq",
        title: "Groq",
        base_url: "https://api.groq.com/openai/v1",
        key_env: "GROQ_API_KEY",
        speaks: CHAT_ONLY,
        docs: "https://console.groq.com/docs/api-reference",
        ..PLAIN
    },
    Kind {
        name: "together",
        title: "Together AI",
        base_url: "https://api.together.xyz/v1",
        key_env: "TOGETHER_API_KEY",
        speaks: RANKING,
        docs: "https://docs.together.ai/reference",
        ..PLAIN
    },
    Kind {
        name: "openrouter",
        title: "OpenRouter",
        base_url: "https://openrouter.ai/api/v1",
        key_env: "OPENROUTER_API_KEY",
        // Responses go there as chats: its own route for them is in beta.
        speaks: &[
            (Chat, "/chat/completions"),
            (Messages, "/messages"),
            (Embeddings, "/embeddings"),
        ],
        docs: "https://openrouter.ai/docs/api-reference/overview",
        ..PLAIN
    },
    Kind {
        name: "deepseek",
        title: "DeepSeek",
        base_url: "https://api.deepseek.com/v1",
        key_env: "DEEPSEEK_API_KEY",
        speaks: CHAT_ONLY,
        docs: "https://api-docs.deepseek.com",
        ..PLAIN
    },
    Kind {
        name: "xai",
        title: "xAI",
        base_url: "https://api.x.ai/v1",
        key_env: "XAI_API_KEY",
        speaks: &[(Chat, "/chat/completions"), (Responses, "/responses")],
        docs: "https://docs.x.ai/docs/api-reference",
        ..PLAIN
    },
    Kind {
        name: "fireworks",
        title: "Fireworks AI",
        base_url: "https://api.fireworks.ai/inference/v1",
        key_env: "FIREWORKS_API_KEY",
        speaks: FIREWORKS,
        docs: "https://docs.fireworks.ai/api-reference",
        ..PLAIN
    },
    Kind {
        name: "nvidia",
        title: "NVIDIA NIM (the hosted catalogue; base_url for one of your own)",
        base_url: "https://integrate.api.nvidia.com/v1",
        key_env: "NVIDIA_API_KEY",
        docs: "https://docs.api.nvidia.com/nim/reference/llm-apis",
        ..PLAIN
    },
    Kind {
        name: "vllm",
        title: "vLLM",
        base_url: "http://127.0.0.1:8000/v1",
        speaks: ENGINE,
        flavor: Flavor::Extended,
        docs: "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        ..PLAIN
    },
    Kind {
        name: "sglang",
        title: "SGLang",
        base_url: "http://127.0.0.1:30000/v1",
        speaks: TEXTS,
        flavor: Flavor::Extended,
        docs: "https://docs.sglang.ai/basic_usage/openai_api.html",
        ..PLAIN
    },
    Kind {
        name: "ollama",
        title: "Ollama",
        base_url: "http://127.0.0.1:11434/v1",
        // Responses go there as chats: its older versions have no route for them.
        speaks: &[
            (Chat, "/chat/completions"),
            (Completions, "/completions"),
            (Messages, "/messages"),
            (Embeddings, "/embeddings"),
        ],
        docs: "https://docs.ollama.com/api/openai-compatibility",
        ..PLAIN
    },
    Kind {
        name: "llamacpp",
        title: "llama.cpp's server",
        base_url: "http://127.0.0.1:8080/v1",
        speaks: LLAMA,
        flavor: Flavor::Extended,
        docs: "https://github.com/ggml-org/llama.cpp/tree/master/tools/server",
        ..PLAIN
    },
    Kind {
        name: "hearth",
        title: "Another Hearth",
        base_url: "http://127.0.0.1:8080/v1",
        speaks: ENGINE,
        flavor: Flavor::Extended,
        docs: "https://platform.openai.com/docs/api-reference/chat",
        ..PLAIN
    },
    PLAIN,
];

/// Whether it is a dialect of chats.
pub(super) fn is_of_chats(dialect: Dialect) -> bool {
    matches!(dialect, Chat | Messages | Responses | Gemini | Converse)
}

/// What stands behind a dialect's path where that says how the answer is to come.
#[must_use]
pub fn method(dialect: Dialect, stream: bool) -> &'static str {
    match (dialect, stream) {
        (Gemini, true) => ":streamGenerateContent?alt=sse",
        (Gemini, false) => ":generateContent",
        (Converse, true) => "/converse-stream",
        (Converse, false) => "/converse",
        _ => "",
    }
}

impl Kind {
    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The path of a dialect that it speaks.
    #[must_use]
    pub fn path(&self, dialect: Dialect) -> Option<&'static str> {
        self.speaks.iter().find(|(spoken, _)| *spoken == dialect).map(|(_, path)| *path)
    }

    /// Whether it can be asked in a dialect, as it is or translated.
    #[must_use]
    pub fn serves(&self, dialect: Dialect) -> bool {
        let translated = match dialect {
            Chat | Completions | Messages | Responses | Gemini | Converse => self.chats(),
            Rerank => self.path(Cohere).is_some(),
            Cohere => self.path(Rerank).is_some(),
            Embeddings | Score => false,
        };
        translated || self.path(dialect).is_some()
    }

    /// Whether it answers chats at all.
    #[must_use]
    pub fn chats(&self) -> bool {
        !matches!(self.main(), Embeddings | Rerank | Cohere | Score)
    }

    /// Whether a model goes on with plain prompts. Of OpenAI's own few do, and all others are
    /// refused on that route: those have it in their names.
    /// Source: OpenAI's API reference, `model` of a completion.
    #[must_use]
    pub fn completes(&self, model: &str) -> bool {
        let named = || ["instruct", "davinci", "babbage"].iter().any(|word| model.contains(word));
        self.path(Completions).is_some() && (self.flavor != Flavor::OpenAi || named())
    }

    /// Whether a model can be asked for its thoughts, sealed. Of OpenAI's those that do not think
    /// refuse the question: their names say it. Others leave it unanswered.
    /// Source: OpenAI's list of models, and public reports of the refusal.
    #[must_use]
    pub fn thinks(&self, model: &str) -> bool {
        let name = model.rsplit('/').next().unwrap_or_default().trim_start_matches("ft:");
        let digit = |text: &str, least: u8| {
            text.bytes().next().is_some_and(|first| first.is_ascii_digit() && first >= least)
        };
        // Of a deployment it may stand anywhere in the name.
        let gpt = name.split("gpt").skip(1).any(|rest| digit(rest.trim_start_matches('-'), b'5'));
        self.flavor != Flavor::OpenAi
            || (gpt && !name.contains("-chat"))
            || name.strip_prefix('o').is_some_and(|rest| digit(rest, b'1'))
            || ["codex", "computer-use"].iter().any(|word| name.contains(word))
    }

    /// The thoughts that a model takes of those that lie here.
    #[must_use]
    pub fn seals(&self, model: &str) -> Seals {
        match (self.flavor, self.name) {
            (Flavor::OpenAi, _) | (_, "xai") => Seals::Own { thinks: self.thinks(model) },
            (_, "hearth") => Seals::All,
            _ => Seals::Words,
        }
    }

    /// The dialect that chats in others are translated to.
    #[must_use]
    pub fn main(&self) -> Dialect {
        self.speaks.first().map_or(Chat, |(dialect, _)| *dialect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_thinks_has_it_in_the_name() {
        let openai = Kind::named("openai").expect("a row");
        for name in [
            "gpt-5",
            "gpt-5.1-mini",
            "gpt-6-sol",
            "o1",
            "o3-mini",
            "o4-mini-2025-04-16",
            "gpt-4.1-codex",
            "ft:o4-mini-2025:org::x",
            "prod-gpt5",
            "eu/gpt-6",
            "computer-use-preview",
        ] {
            assert!(openai.thinks(name), "{name}");
        }
        for name in [
            "gpt-4o",
            "gpt-4o-mini",
            "gpt-4.1",
            "gpt-5-chat-latest",
            "gpt-3.5-turbo",
            "prod",
            "ft:gpt-4o:org::o3",
            "omni-moderation",
            "",
        ] {
            assert!(!openai.thinks(name), "{name}");
        }
        assert!(Kind::named("vllm").expect("a row").thinks("qwen3"));
    }

    #[test]
    fn rows_are_whole() {
        for kind in KINDS {
            let (name, base) = (kind.name, kind.base_url);
            let one = KINDS.iter().filter(|other| other.name == name).count();
            assert_eq!(one, 1, "{name}");
            assert!(!kind.speaks.is_empty() && kind.docs.starts_with("https://"), "{name}");
            let local = base.starts_with("http://127.0.0.1:");
            assert!(base.is_empty() || base.starts_with("https://") || local, "{name}");
            assert!(!base.ends_with('/'), "{name}");
            // Whoever answers on the internet wants a key.
            assert_eq!(
                kind.key_env.is_empty(),
                base.is_empty() && name != "azure" || local,
                "{name}"
            );
            assert!(kind.speaks.iter().all(|(_, path)| path.starts_with('/')), "{name}");
            // More than that leaves a house only where its operator has said so.
            assert!(kind.max_label <= Label::Internal, "{name}");
        }
    }
}
