package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/go-sql-driver/mysql"
)

// bootstrapTimeout bounds the time from starting hbd to the first answer through the VIP, on a busy machine.
const bootstrapTimeout = 60 * time.Second

// retryEvery is the pace at which hbd and the VIP are asked again until they answer.
const retryEvery = 50 * time.Millisecond

// tryTimeout bounds one try: long enough for a bootstrap, short enough that a lost packet costs little.
const tryTimeout = 5 * time.Second

// maxAnswer bounds what is read of one HTTP answer, in bytes.
const maxAnswer = 1 << 20

// bootstrap makes db1 the first primary and returns when the cluster is steady and serves through the VIP. It needs
// of hbd: POST /v1/bootstrap {"primary":"db1","actor":"..."} and GET /v1/status with a phase, on port 7948.
func (s *Sandbox) bootstrap(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	client := s.HTTPClient("client")
	defer client.CloseIdleConnections()
	steps := []struct {
		what string
		try  func(context.Context) error
	}{
		{"db1 accepts the bootstrap", func(ctx context.Context) error { return s.postBootstrap(ctx, client) }},
		{"the cluster is steady", func(ctx context.Context) error { return s.checkSteady(ctx, client) }},
		{"the VIP answers", s.pingVIP},
	}
	for _, step := range steps {
		if err := retry(ctx, step.what, step.try); err != nil {
			return err
		}
	}
	return nil
}

// refusal is an answer that asking again will not change.
type refusal struct{ error }

// retry calls try until it succeeds, refuses for good or ctx ends; the last error is kept.
func retry(ctx context.Context, what string, try func(context.Context) error) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, tryTimeout)
		err := try(one)
		cancel()
		var final refusal
		if err == nil || errors.As(err, &final) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// HTTPClient returns a client whose connections start on the given host; the host part of an URL is the name or
// address of a host of the sandbox.
func (s *Sandbox) HTTPClient(host string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return s.Dial(ctx, host, network, addr)
		},
	}}
}

func (s *Sandbox) postBootstrap(ctx context.Context, client *http.Client) error {
	url := fmt.Sprintf("http://%s:%d/v1/bootstrap", s.plan.Hosts[0].Name, apiPort)
	body, err := json.Marshal(map[string]string{"primary": s.plan.Hosts[0].Name, "actor": "hbctl sandbox"})
	if err != nil {
		return refusal{err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return refusal{err}
	}
	req.Header.Set("Content-Type", "application/json")
	code, answer, err := fetch(client, req)
	switch {
	case err != nil:
		return err
	case code < 300:
		return nil
	case code == http.StatusConflict:
		return again(answer)
	case code == http.StatusServiceUnavailable || code == http.StatusBadGateway || code == http.StatusGatewayTimeout:
		return fmt.Errorf("hbd answered %d: %s", code, tail(answer, 500))
	default:
		return refusal{fmt.Errorf("hbd answered %d: %s", code, tail(answer, 500))}
	}
}

// again sorts refusals: an earlier try that got through is what was wanted, and the next step looks. Any other may
// pass, such as a peer whose hbd is not yet up.
func again(answer []byte) error {
	var refused struct{ Rule, Message string }
	if err := json.Unmarshal(answer, &refused); err != nil {
		return fmt.Errorf("hbd refused: %s", tail(answer, 500))
	}
	if refused.Rule == "cluster.bootstrapped" {
		return nil
	}
	return fmt.Errorf("hbd refused, rule %s: %s", refused.Rule, refused.Message)
}

// checkSteady asks every node in turn; one that says steady is enough. Where there are hosts enough a failure must be
// survived as well: replicas catch up in a moment, and whoever looks at a new sandbox should not find it degraded.
func (s *Sandbox) checkSteady(ctx context.Context, client *http.Client) error {
	var errs []error
	for _, h := range s.plan.Hosts {
		if h.Role == RoleClient {
			continue
		}
		url := fmt.Sprintf("http://%s:%d/v1/status", h.Name, apiPort)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return refusal{err}
		}
		_, answer, err := fetch(client, req)
		var status struct {
			Phase    string
			Survives int `json:"failures_tolerated"`
			Why      []string
		}
		if err == nil {
			err = json.Unmarshal(answer, &status)
		}
		if err == nil && status.Phase == "steady" && (status.Survives > 0 || !s.plan.canSurvive()) {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: phase %q, survives %d failures %q, error %w", h.Name, status.Phase, status.Survives, status.Why, err))
	}
	return errors.Join(errs...)
}

// canSurvive: with so many hosts the loss of any one is survived.
func (p plan) canSurvive() bool {
	voters := len(p.Hosts) - 1 // all but the client
	return voters >= 3 && p.dataHosts() >= 2+p.MinReplicas
}

// dataHosts counts the database hosts.
func (p plan) dataHosts() int {
	n := 0
	for _, h := range p.Hosts {
		if h.Role == RoleData {
			n++
		}
	}
	return n
}

func fetch(client *http.Client, req *http.Request) (int, []byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, body, err
}

// pingVIP logs in as the application, through the VIP, from the client.
func (s *Sandbox) pingVIP(ctx context.Context) error {
	cfg, err := mysql.ParseDSN(s.plan.dsn(s.plan.VIP))
	if err != nil {
		return refusal{fmt.Errorf("parsing our own DSN: %w", err)}
	}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return s.Dial(ctx, "client", network, addr)
	}
	cfg.Logger = log.New(io.Discard, "", 0) // a refused connection is expected here, and returned as an error too
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return refusal{fmt.Errorf("making a connector: %w", err)}
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}
