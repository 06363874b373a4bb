// The requests that a client sends for a layer, for what is measured and for what the executable is arranged by.
// https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md

/** A request to wrap a layer key, which is not a secret, with `key`, under the reference provider's name. */
export function wrapRequest(key: string): Uint8Array {
  const parameters = { Parameters: { kmscrypt: [base64(key)] } };
  const record = {
    symkey: base64(new Uint8Array(32).fill(1)),
    digest: `sha256:${'5'.repeat(64)}`,
    cipheroptions: { nonce: base64(new Uint8Array(16).fill(2)) },
  };
  const ec = { ...parameters, DecryptConfig: parameters };
  return encode({ op: 'keywrap', keywrapparams: { ec, optsdata: base64(JSON.stringify(record)) } });
}

/** A request to unwrap what a reply to {@link wrapRequest} holds. */
export function unwrapRequest(key: string, wrapReply: Uint8Array): Uint8Array {
  const { keywrapresults } = JSON.parse(Buffer.from(wrapReply).toString());
  const dc = { Parameters: { kmscrypt: [base64(key)] } };
  return encode({ op: 'keyunwrap', keyunwrapparams: { dc, annotation: keywrapresults.annotation } });
}

function encode(request: object): Uint8Array {
  return Buffer.from(JSON.stringify(request));
}

function base64(data: string | Uint8Array): string {
  return Buffer.from(data).toString('base64');
}
