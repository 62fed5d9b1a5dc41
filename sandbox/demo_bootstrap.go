package sandbox

import (
	"context"
	"fmt"
	"net/http"
)

// Bootstrap makes db1 the first primary of a sandbox built with Options.NoBootstrap, and returns when the cluster serves
// through the VIP. It waits until every hbd answers first: a bootstrap that meets a peer which is not there yet is refused.
func (s *Sandbox) Bootstrap(ctx context.Context) error {
	client := s.HTTPClient("client")
	defer client.CloseIdleConnections()
	for _, h := range s.plan.Hosts {
		if h.Role == RoleClient {
			continue
		}
		url := fmt.Sprintf("http://%s:%d/v1/status", h.Name, apiPort)
		err := retry(ctx, "hbd of "+h.Name+" answers", func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return refusal{err}
			}
			code, answer, err := fetch(client, req)
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("hbd answered %d: %s", code, tail(answer, 500))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.bootstrap(ctx)
}
