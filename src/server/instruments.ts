// What the server measures: the names of its metrics, and the places where calls, keys and audit events pass by.

import { asOcicryptError, type ErrorCode } from '../base/errors.ts';
import type { Scheme } from '../base/key-uri.ts';
import { decorate, type Kek, oncePerKek } from '../kms/kek.ts';
import { SHARING_EVENTS, type SharingEvent } from '../kms/sharing.ts';
import type { Decision } from '../provider/audit.ts';
import type { CallReport } from './call.ts';
import { CLOSE_REASONS, type CloseReason } from './connection.ts';
import { statusName } from './failure-log.ts';
import {
  Counter,
  type Gauge,
  Histogram,
  processGauges,
  reloadCounters,
  renderMetrics,
  type ServerReadings,
  serverGauges,
} from './metrics.ts';

/** Takes measurements of a whole server and writes them as Prometheus text. */
export class Instruments {
  readonly #requests = new Counter(
    'ocicrypt_kms_requests_total',
    'Key-provider requests by operation, backend and outcome.',
    ['operation', 'backend', 'code'],
  );
  readonly #calls = new Counter('ocicrypt_kms_calls_total', 'gRPC calls by method and status.', ['method', 'status']);
  readonly #phases = new Histogram(
    'ocicrypt_kms_call_seconds',
    'Time of gRPC calls by phase: receive, queue, handle.',
    ['phase'],
  );
  readonly #keyCalls = new Counter('ocicrypt_kms_key_calls_total', 'Calls of keys by backend, operation and outcome.', [
    'backend',
    'operation',
    'code',
  ]);
  readonly #keyTimes = new Histogram(
    'ocicrypt_kms_key_call_seconds',
    'Time of calls of keys by backend and operation.',
    ['backend', 'operation'],
  );
  readonly #closed = new Counter(
    'ocicrypt_kms_connections_closed_total',
    'Connections that the server closed, by reason.',
    ['reason'],
    CLOSE_REASONS,
  );
  readonly #limits = new Counter(
    'ocicrypt_kms_key_limits_total',
    "Unwraps that joined another caller's, calls that waited for the key's rate or the processor, that the rate refused, and that were held while the service is down.",
    ['event'],
    SHARING_EVENTS,
  );
  readonly #reloads = reloadCounters();
  #readings: readonly Gauge[] = processGauges();

  /** Adds the gauges of a server. */
  read(readings: ServerReadings): void {
    this.#readings = [...this.#readings, ...serverGauges(readings)];
  }

  call({ method, status, received, queued, handled }: CallReport): void {
    this.#calls.add(method, statusName(status));
    if (method === 'unknown') return;
    this.#phases.observe(received, 'receive');
    this.#phases.observe(queued, 'queue');
    this.#phases.observe(handled, 'handle');
  }

  closed(reason: CloseReason): void {
    this.#closed.add(reason);
  }

  keyLimit(event: SharingEvent): void {
    this.#limits.add(event);
  }

  reloaded(what: 'certificates' | 'policy', result: 'ok' | 'failed'): void {
    this.#reloads[what].add(result);
  }

  decision({ operation, key, outcome }: Decision): void {
    this.#requests.add(operation, backendOf(key), outcome);
  }

  /** Makes the function that gives every opened key a form whose calls are measured, always the same for the same key. */
  kekMeasure(): (kek: Kek, backend: Scheme) => Kek {
    return oncePerKek((kek, backend) =>
      decorate(kek, {
        wrap: (...call) => this.#measure(backend, 'wrap', kek.wrap(...call)),
        unwrap: (...call) => this.#measure(backend, 'unwrap', kek.unwrap(...call)),
      }),
    );
  }

  render(): string {
    return renderMetrics([
      ...[this.#requests, this.#calls, this.#phases, this.#keyCalls, this.#keyTimes],
      ...[this.#closed, this.#limits, this.#reloads.certificates, this.#reloads.policy],
      ...this.#readings,
    ]);
  }

  async #measure<Value>(backend: Scheme, operation: 'wrap' | 'unwrap', result: Promise<Value>): Promise<Value> {
    const started = performance.now();
    let code: 'ok' | ErrorCode = 'ok';
    try {
      return await result;
    } catch (error) {
      code = asOcicryptError(error).code;
      throw error;
    } finally {
      this.#keyCalls.add(backend, operation, code);
      this.#keyTimes.observe(performance.now() - started, backend, operation);
    }
  }
}

const BACKENDS: ReadonlySet<string> = new Set<Scheme>([
  'gcpkms',
  'awskms',
  'azurekms',
  'hashivault',
  'pkcs11',
  'keyfile',
  'age',
  'kbs',
]);

/** From the canonical URI of a key that policy let through; anything else is one value, so that the set stays closed. */
function backendOf(key: string | undefined): string {
  if (key?.startsWith('age1')) return 'age';
  const scheme = key?.slice(0, key.indexOf(':')) ?? '';
  return BACKENDS.has(scheme) ? scheme : 'none';
}
