//! The ttrpc of Rust, which ocicrypt-rs is linked with, as a client of its key-provider service.
//!
//!     ttrpc-rust SOCKET METHOD    sends standard input, prints the reply; a status is printed as its number, exit 1
use std::io::{Read, Write};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request).expect("standard input");
    let client = ttrpc::Client::connect(&format!("unix://{}", arguments[1])).expect("connect");
    let mut call = ttrpc::proto::Request::new();
    call.service = "keyprovider.KeyProviderService".into();
    call.method = arguments[2].clone();
    call.timeout_nano = 10_000_000_000;
    call.payload = field(&request);
    match client.request(call) {
        Ok(response) => std::io::stdout().write_all(value(&response.payload)).expect("standard output"),
        Err(ttrpc::Error::RpcStatus(status)) => {
            println!("{}", status.code() as i32);
            std::process::exit(1);
        }
        Err(other) => panic!("{other}"),
    }
}

/// What ocicrypt's messages are on the wire: bytes in field 1.
fn field(bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![0x0a];
    let mut rest = bytes.len();
    while rest > 0x7f {
        message.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    message.push(rest as u8);
    message.extend_from_slice(bytes);
    message
}

fn value(message: &[u8]) -> &[u8] {
    let length = message[1..].iter().position(|byte| byte & 0x80 == 0).expect("a length");
    &message[length + 2..]
}
