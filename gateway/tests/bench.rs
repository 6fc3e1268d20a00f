//! `hearth bench engine` through the real binary, on a shape so small that it runs in every test.

use std::process::{Command, Output};

use serde_json::Value;

fn hearth(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.args(["bench", "engine", "--device", "cpu"]).args(line.split(' '));
    command.output().expect("the binary runs")
}

/// What a run that measures this printed, and its line for programs.
fn check(line: &str) -> (String, Value) {
    let name = line.replace([' ', ',', '/'], "_");
    let file = std::env::temp_dir().join(format!("hearth-{}-{name}.jsonl", std::process::id()));
    let output = hearth(&format!("{line} --json {}", file.display()));
    let [text, errors] = [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t));
    assert!(output.status.success(), "{line}: {text}{errors}");
    let json = std::fs::read_to_string(&file).expect("a line of figures");
    std::fs::remove_file(&file).expect("the file can go");
    assert_eq!(json.lines().count(), 1, "{json}");
    (text.into_owned(), serde_json::from_str(&json).expect("JSON"))
}

#[test]
fn decode_is_measured_in_every_format() {
    for dtype in ["bf16", "fp8", "int4", "q4_k", "q8_0"] {
        let line = format!("--shape tiny --dtype {dtype} --batch 1,4 --context 64 --steps 8");
        let (text, json) = check(&line);
        assert!(text.contains("step ms"), "{text}");
        assert_eq!(json["weights"], dtype);
        let measured = json["measured"].as_array().expect("figures");
        assert_eq!(measured.len(), 2, "{json}");
        for (figure, batch) in measured.iter().zip([1.0, 4.0]) {
            let decode = &figure["decode"];
            let of = |name: &str| decode[name].as_f64().expect(name);
            assert_eq!((of("batch"), of("steps")), (batch, 8.0), "{decode}");
            // Steps that follow each other: the tokens per second are the rows by their mean.
            assert!(of("tokens_per_s") <= 1e3 * batch / of("step_ms") * 8.0, "{decode}");
            assert!(of("step_ms") > 0.0 && of("step_p99_ms") >= of("step_ms"), "{decode}");
            // Positions of the prompt and of what was made.
            assert!((64.0..90.0).contains(&of("context")), "{decode}");
            assert!(of("bytes") > 0.9 * json["weight_bytes"].as_f64().unwrap() / 4.0, "{decode}");
        }
    }
}

#[test]
fn prompts_and_crowds_are_measured() {
    let load = "--context 16 --prompts 64,5000 --mixed 128 --throughput 32,8,40";
    let (text, json) = check(&format!("--shape tiny {load}"));
    let measured = json["measured"].as_array().expect("figures");
    assert_eq!(measured.len(), 4, "{json}");
    assert!(measured[0]["prefill"]["tflops"].as_f64().unwrap() > 0.0, "{json}");
    let why = measured[1]["does_not_fit"]["why"].as_str().expect("a reason");
    assert!(why.contains("5001 tokens") && text.contains(why), "{json}");
    assert_eq!(measured[2]["mixed"]["prompts"], 4, "{json}");
    let throughput = &measured[3]["throughput"];
    assert_eq!(throughput["requests"], 40, "{json}");
    let all = throughput["tokens_per_s"].as_f64().unwrap();
    let made = throughput["output_tokens_per_s"].as_f64().unwrap();
    assert!((all / made - 5.0).abs() < 1e-6, "{json}");
}

#[test]
fn wrong_flags_are_refused() {
    for line in ["--shape llama", "--shape tiny --model x", "--shape tiny --batch 0", "--steps 1"] {
        assert_eq!(hearth(line).status.code(), Some(64), "{line}");
    }
}
