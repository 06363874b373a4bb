// Answers queries over scraped metrics by Prometheus's own engine: one JSON document in, one out.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb"
)

type scrape struct {
	At     int64             `json:"at"` // seconds
	Labels map[string]string `json:"labels"`
	Text   string            `json:"text"`
}

type question struct {
	Scrapes []scrape `json:"scrapes"`
	Queries []string `json:"queries"`
	At      int64    `json:"at"`
}

type sample struct {
	Labels map[string]string `json:"labels"`
	Value  string            `json:"value"`
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	input, err := io.ReadAll(os.Stdin)
	check(err)
	var asked question
	check(json.Unmarshal(input, &asked))
	directory, err := os.MkdirTemp("", "promql-")
	check(err)
	defer os.RemoveAll(directory)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	options := tsdb.DefaultOptions()
	db, err := tsdb.Open(directory, quiet, nil, options, nil)
	check(err)
	defer db.Close()
	for _, one := range asked.Scrapes {
		store(db, one)
	}
	engine := promql.NewEngine(promql.EngineOpts{Logger: quiet, MaxSamples: 1_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	answers := [][]sample{}
	for _, text := range asked.Queries {
		answers = append(answers, ask(engine, db, text, time.Unix(asked.At, 0)))
	}
	check(json.NewEncoder(os.Stdout).Encode(answers))
}

func store(db *tsdb.DB, one scrape) {
	appender := db.Appender(context.Background())
	parser := textparse.NewPromParser([]byte(one.Text), labels.NewSymbolTable(), false)
	for {
		entry, err := parser.Next()
		if err == io.EOF {
			break
		}
		check(err)
		if entry != textparse.EntrySeries {
			continue
		}
		_, _, value := parser.Series()
		var own labels.Labels
		parser.Labels(&own)
		builder := labels.NewBuilder(own)
		for name, text := range one.Labels {
			builder.Set(name, text)
		}
		_, err = appender.Append(0, builder.Labels(), one.At*1000, value)
		check(err)
	}
	check(appender.Commit())
}

func ask(engine *promql.Engine, db *tsdb.DB, text string, at time.Time) []sample {
	query, err := engine.NewInstantQuery(context.Background(), db, nil, text, at)
	check(err)
	defer query.Close()
	result := query.Exec(context.Background())
	check(result.Err)
	vector, err := result.Vector()
	check(err)
	samples := []sample{}
	for _, one := range vector {
		value, err := json.Marshal(one.F)
		if err != nil {
			value = []byte("NaN")
		}
		samples = append(samples, sample{one.Metric.Map(), string(value)})
	}
	return samples
}
