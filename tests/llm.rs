//! A language model's endpoint, well and unwell, over real connections.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagehand::cost::ModelCall;
use pagehand::llm::{Client, LlmError};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the endpoint says, one answer a connection, the last one again and again; None: nothing at all.
async fn endpoint(answers: Vec<Option<String>>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = asked.clone();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read(&mut stream).await;
            heard.lock().unwrap().push(request);
            match &answers[n.min(answers.len() - 1)] {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => silent.push(stream),
            }
        }
    });
    (address, asked)
}

async fn read(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        if n == 0 || body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

fn http(status: &str, headers: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n{body}", body.len()))
}

fn completion(content: &str) -> Option<String> {
    let body = json!({"choices": [{"message": {"role": "assistant", "content": content}}],
                      "usage": {"prompt_tokens": 120, "completion_tokens": 30}});
    http("200 OK", "content-type: application/json\r\n", &body.to_string())
}

async fn ask(answers: Vec<Option<String>>) -> (Result<Value, LlmError>, Vec<ModelCall>, Vec<String>) {
    let (address, asked) = endpoint(answers).await;
    let url = format!("http://{address}/v1").parse().unwrap();
    let key = Some("the-key".to_owned().into());
    let client = Client::new(url, "m".to_owned(), key, Duration::from_secs(3), 100);
    let mut calls = Vec::new();
    let answer = client.ask("be brief", "which?", &json!({"type": "object"}), |call| calls.push(call)).await;
    let asked = asked.lock().unwrap().clone();
    (answer, calls, asked)
}

#[tokio::test]
async fn an_answer_comes_with_the_tokens_of_each_direction() {
    let (answer, calls, asked) = ask(vec![completion("{\"form\":null}")]).await;
    assert_eq!(answer, Ok(json!({"form": null})));
    assert_eq!(calls, [ModelCall { model: "m".to_owned(), input_tokens: 120, output_tokens: 30 }]);
    let request = asked[0].to_lowercase();
    assert!(
        request.starts_with("post /v1/chat/completions http/1.1") && request.contains("bearer the-key"),
        "{request}"
    );
    assert!(request.contains("json_schema") && request.contains("be brief"), "{request}");
}

#[tokio::test]
async fn an_endpoint_that_puts_off_is_asked_once_more() {
    let busy = http("429 Too Many Requests", "retry-after: 0\r\n", "");
    let (answer, calls, _) = ask(vec![busy.clone(), completion("{}")]).await;
    assert_eq!((answer, calls.len()), (Ok(json!({})), 2));
    let (answer, calls, _) = ask(vec![busy]).await;
    assert!(matches!(answer, Err(LlmError::Refused { status: 429, .. })), "{answer:?}");
    assert_eq!(calls.len(), 2);
    let (answer, calls, _) = ask(vec![http("503 Unavailable", "retry-after: 3600\r\n", "")]).await;
    assert!(matches!(answer, Err(LlmError::Refused { status: 503, .. })), "{answer:?}");
    assert_eq!(calls.len(), 1, "nobody waits an hour");
    let (answer, calls, _) = ask(vec![http("401 Unauthorized", "", "{}")]).await;
    assert!(matches!(answer, Err(LlmError::Refused { status: 401, .. })) && calls.len() == 1, "{answer:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_silent_is_given_up_and_its_tokens_are_counted() {
    let (answer, calls, _) = ask(vec![None]).await;
    assert_eq!(answer, Err(LlmError::TimedOut(Duration::from_secs(3))));
    assert!(calls[0].input_tokens > 20 && calls[0].output_tokens == 0, "{calls:?}");
}

#[tokio::test]
async fn nonsense_is_no_answer_and_costs_what_it_costs() {
    for nonsense in ["I think it is the second one.", "", "{\"form\":"] {
        let (answer, calls, _) = ask(vec![completion(nonsense)]).await;
        assert!(matches!(answer, Err(LlmError::Nonsense(_))), "{nonsense}: {answer:?}");
        assert_eq!(calls[0].output_tokens, 30);
    }
    for body in ["<html>", "{\"choices\":[]}", "[]"] {
        let (answer, ..) = ask(vec![http("200 OK", "", body)]).await;
        assert!(matches!(answer, Err(LlmError::Nonsense(_))), "{body}: {answer:?}");
    }
    let (answer, ..) = ask(vec![http("200 OK", "", &"x".repeat(400_000))]).await;
    assert!(matches!(answer, Err(LlmError::Nonsense(_) | LlmError::Unreachable(_))), "{answer:?}");
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client =
        Client::new(format!("http://{gone}").parse().unwrap(), "m".to_owned(), None, Duration::from_secs(3), 10);
    let mut calls = Vec::new();
    let answer = client.ask("s", "q", &json!({}), |call| calls.push(call)).await;
    assert!(matches!(answer, Err(LlmError::Unreachable(_))), "{answer:?}");
    assert_eq!(calls[0].input_tokens, 0);
}
