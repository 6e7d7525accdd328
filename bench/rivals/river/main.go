// River: "preload" makes the schema and sends, "work" runs one worker process.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type config struct {
	Mode     string   `json:"mode"`
	URL      string   `json:"url"`
	Handler  string   `json:"handler"`
	Messages int      `json:"messages"`
	Keys     int      `json:"keys"`
	Settings settings `json:"settings"`
}

type settings struct {
	MaxWorkers          int   `json:"MaxWorkers"`
	FetchCooldownMs     int   `json:"FetchCooldownMs"`
	FetchPollIntervalMs int   `json:"FetchPollIntervalMs"`
	MaxConns            int32 `json:"MaxConns"`
}

type args struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

func (args) Kind() string { return "bench" }

type worker struct {
	river.WorkerDefaults[args]
	handler string
	pool    *pgxpool.Pool
	handled *atomic.Int64
}

func (w *worker) Work(ctx context.Context, job *river.Job[args]) error {
	w.handled.Add(1)
	switch w.handler {
	case "update":
		_, err := w.pool.Exec(ctx, "UPDATE state SET total = total + $1 WHERE key = $2",
			job.Args.N, job.Args.Key)
		return err
	case "sleep":
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func main() {
	ctx := context.Background()
	var c config
	must(json.Unmarshal([]byte(os.Args[1]), &c))
	poolConfig, err := pgxpool.ParseConfig(c.URL)
	must(err)
	if c.Settings.MaxConns > 0 {
		poolConfig.MaxConns = c.Settings.MaxConns
	}
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig)
	must(err)
	defer pool.Close()
	must(pool.Ping(ctx))
	if c.Mode == "preload" {
		preload(ctx, &c, pool)
	} else {
		work(ctx, &c, pool)
	}
}

func preload(ctx context.Context, c *config, pool *pgxpool.Pool) {
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New[pgx.Tx](driver, nil)
	must(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	must(err)
	client, err := river.NewClient(driver, &river.Config{})
	must(err)
	for first := 1; first <= c.Messages; first += 10000 {
		jobs := make([]river.InsertManyParams, 0, 10000)
		for i := first; i < first+10000 && i <= c.Messages; i++ {
			jobs = append(jobs, river.InsertManyParams{
				Args: args{Key: strconv.Itoa(i % c.Keys), N: i%7 + 1},
			})
		}
		_, err = client.InsertManyFast(ctx, jobs)
		must(err)
	}
}

func work(ctx context.Context, c *config, pool *pgxpool.Pool) {
	var handled atomic.Int64
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{handler: c.Handler, pool: pool, handled: &handled})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown:     time.Duration(c.Settings.FetchCooldownMs) * time.Millisecond,
		FetchPollInterval: time.Duration(c.Settings.FetchPollIntervalMs) * time.Millisecond,
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: c.Settings.MaxWorkers}},
		Workers:           workers,
	})
	must(err)
	input := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err = input.ReadString('\n'); err == nil {
		must(client.Start(ctx))
		_, err = io.Copy(io.Discard, input)
		must(err)
		must(client.Stop(ctx))
	}
	fmt.Println(handled.Load())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
