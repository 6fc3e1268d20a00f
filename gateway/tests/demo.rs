//! The demo model through the whole lower house: wiring, thread, scheduler, engine, kernels.

use clap::{Args as _, FromArgMatches as _};
use gateway::backend::local::EngineState;
use gateway::config::{Config, Flags};
use gateway::metrics::Metrics;
use gateway::wiring::{self, Target};
use scheduler::types::{Event, Request, RequestId};

#[tokio::test]
async fn the_demo_model_answers_twice_the_same() {
    let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
    let matches = command.get_matches_from(["--context", "256", "--rows-max", "2"]);
    let flags = Flags::from_arg_matches(&matches).unwrap();
    let config = Config::load(&flags, std::iter::empty()).unwrap().config;
    let metrics = Metrics::new();
    let planned = wiring::plan(&config, &Target::Cpu(None), &config.models[0]).await.unwrap();
    let model = planned.start(&config, &metrics).unwrap();
    assert_eq!((model.id.as_str(), model.context), ("demo", 256));

    let prompt = model.text.encode("The house is", true).unwrap();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = Request {
            min_tokens: 8,
            stop_tokens: model.eos.clone(),
            ..Request::greedy(RequestId(0), prompt.clone(), 8)
        };
        let mut generation = model.submit(request, gateway::backend::Along::nothing()).unwrap();
        let mut tokens = Vec::new();
        while let Some(event) = generation.next().await {
            match event {
                Event::Token { token, .. } => tokens.push(token),
                Event::Refused(_, why, _) => panic!("{why:?}"),
                _ => {}
            }
        }
        answers.push(model.text.decode(&tokens, true));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(!answers[0].trim().is_empty());
    assert!(model.engine.drain(std::time::Duration::from_secs(5)).await);
    assert!(matches!(model.engine.state(), EngineState::Stopped(_)));
    assert!(metrics.render().contains("hearth_generation_tokens_total{model=\"demo\"} 16"));
}
