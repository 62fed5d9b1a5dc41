package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// headerHead carries the JSON part of a Blob.
const headerHead = "Highbase-Head"

// Blob is an answer that carries bytes as they are, at most MaxAnswer of them, beside a small JSON value.
// A Handler returns it in place of a value; CallBlob asks for it.
type Blob struct {
	Head any
	Data []byte
}

// CallBlob asks a peer whose method answers with a Blob; its JSON part is decoded into head. Errors are
// those of Call.
func (c *Client) CallBlob(ctx context.Context, peer Peer, method string, in, head any) ([]byte, error) {
	header, body, err := c.ask(ctx, false, peer, method, in)
	if err != nil {
		return nil, err
	}
	if err := decodeAnswer([]byte(header.Get(headerHead)), head); err != nil {
		return nil, fmt.Errorf("calling %s on %s: %w: answer is not readable: %w", method, peer.ID, ErrNoAnswer, err)
	}
	return body, nil
}

func (s *Server) sendBlob(w http.ResponseWriter, r *http.Request, b Blob) {
	head, err := json.Marshal(b.Head)
	if err != nil || len(b.Data) > MaxAnswer {
		s.refuse(w, r, ErrFailed.Errorf("encoding the answer: %d bytes, %v", len(b.Data), err))
		return
	}
	w.Header().Set(headerHead, string(head))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(b.Data)))
	w.WriteHeader(http.StatusOK)
	if _, err := w.Write(b.Data); err != nil {
		// The caller is gone and asks again.
		s.cfg.Log.Debug("rpc answer not sent", "remote", r.RemoteAddr, "error", err)
	}
}
