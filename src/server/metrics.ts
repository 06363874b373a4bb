// The only code that counts: counters, histograms and gauges whose labels come from closed sets, as Prometheus text.
// https://prometheus.io/docs/instrumenting/exposition_formats/

/** A label's values must come from a closed set of ours, never from a request. */
type Labels = Readonly<Record<string, string>>;

/** Something that writes its samples. */
interface Metric {
  render(): string;
}

/** A number that only grows, for each combination of labels. */
export class Counter implements Metric {
  readonly #name: string;
  readonly #help: string;
  readonly #values = new Map<string, number>();

  constructor(name: string, help: string) {
    this.#name = name;
    this.#help = help;
  }

  add(labels: Labels = {}, amount = 1): void {
    const key = formatLabels(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + amount);
  }

  render(): string {
    const samples = [...this.#values].map(([labels, value]) => `${this.#name}${labels} ${value}\n`);
    return `${head(this.#name, this.#help, 'counter')}${samples.join('')}`;
  }
}

/** Seconds, from a local unwrap to the end of every call. */
const BUCKETS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

type Distribution = { readonly counts: Float64Array; sum: number; count: number };

/** How long things take, for each combination of labels. */
export class Histogram implements Metric {
  readonly #name: string;
  readonly #help: string;
  readonly #values = new Map<string, Distribution>();

  constructor(name: string, help: string) {
    this.#name = name;
    this.#help = help;
  }

  observe(labels: Labels, milliseconds: number): void {
    const key = formatLabels(labels);
    let distribution = this.#values.get(key);
    if (distribution === undefined) {
      distribution = { counts: new Float64Array(BUCKETS.length), sum: 0, count: 0 };
      this.#values.set(key, distribution);
    }
    const seconds = milliseconds / 1000;
    const index = BUCKETS.findIndex((bound) => seconds <= bound);
    if (index >= 0) distribution.counts[index] = (distribution.counts[index] ?? 0) + 1;
    distribution.sum += seconds;
    distribution.count++;
  }

  render(): string {
    const lines = [head(this.#name, this.#help, 'histogram')];
    for (const [labels, { counts, sum, count }] of this.#values) {
      let below = 0;
      for (const [index, bound] of BUCKETS.entries()) {
        below += counts[index] ?? 0;
        lines.push(`${this.#name}_bucket${withLabel(labels, 'le', String(bound))} ${below}\n`);
      }
      lines.push(`${this.#name}_bucket${withLabel(labels, 'le', '+Inf')} ${count}\n`);
      lines.push(`${this.#name}_sum${labels} ${sum}\n${this.#name}_count${labels} ${count}\n`);
    }
    return lines.join('');
  }
}

/** A number that is asked for when it is read. */
export class Gauge implements Metric {
  readonly #name: string;
  readonly #help: string;
  readonly #read: () => number;

  constructor(name: string, help: string, read: () => number) {
    this.#name = name;
    this.#help = help;
    this.#read = read;
  }

  render(): string {
    return `${head(this.#name, this.#help, 'gauge')}${this.#name} ${this.#read()}\n`;
  }
}

/** The media type of {@link renderMetrics}. */
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export function renderMetrics(metrics: readonly Metric[]): string {
  return metrics.map((metric) => metric.render()).join('');
}

function head(name: string, help: string, type: string): string {
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
}

function formatLabels(labels: Labels): string {
  const parts: string[] = [];
  for (const name in labels) parts.push(`${name}="${labels[name]}"`);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

function withLabel(labels: string, name: string, value: string): string {
  return labels === '' ? `{${name}="${value}"}` : `${labels.slice(0, -1)},${name}="${value}"}`;
}
