// What a webhook measures: the names of its metrics, and the places where reviews and images pass by.

import {
  Counter,
  Gauge,
  Histogram,
  processGauges,
  reloadCounters,
  renderMetrics,
  type ServerReadings,
  serverGauges,
} from './metrics.ts';
import type { ReloadCounter } from './upkeep.ts';

/** Takes measurements of a webhook and writes them as Prometheus text. All labels come from closed sets. */
export class WebhookInstruments implements ReloadCounter {
  readonly #reviews = new Counter(
    'ocicrypt_kms_admission_reviews_total',
    'Reviews by path and what was said of them.',
    ['path', 'outcome'],
  );
  readonly #images = new Counter(
    'ocicrypt_kms_admission_images_total',
    'Images of pods by what was found: ok, or an error code; integrity is an image that is not encrypted as it must be.',
    ['outcome'],
  );
  readonly #times = new Histogram('ocicrypt_kms_admission_seconds', 'Time of reviews by path.', ['path']);
  readonly #kept = new Counter(
    'ocicrypt_kms_admission_verdicts_total',
    'Verdicts about digests: made, or kept from before.',
    ['source'],
    ['made', 'kept'],
  );
  readonly #reloads = reloadCounters();
  #readings: readonly Gauge[] = processGauges();

  /** @param expiry when the certificate ends, in seconds since 1970 */
  read(readings: ServerReadings, expiry: () => number): void {
    this.#readings = [
      ...this.#readings,
      ...serverGauges(readings),
      new Gauge('ocicrypt_kms_certificate_not_after_seconds', "When the server's certificate ends.", expiry),
    ];
  }

  review(path: string, outcome: string, milliseconds: number): void {
    this.#reviews.add(path, outcome);
    this.#times.observe(milliseconds, path);
  }

  image(outcome: string): void {
    this.#images.add(outcome);
  }

  verdict(source: 'kept' | 'made'): void {
    this.#kept.add(source);
  }

  reloaded(what: 'certificates' | 'policy', result: 'ok' | 'failed'): void {
    this.#reloads[what].add(result);
  }

  render(): string {
    return renderMetrics([
      ...[this.#reviews, this.#images, this.#times, this.#kept, this.#reloads.certificates, this.#reloads.policy],
      ...this.#readings,
    ]);
  }
}
