// Package httpd serves what people and machines ask of one hbd: the JSON API with the node RPC on one
// listener (port 7948), and health checks with metrics on another (port 7949), which is GET-only and
// plain so that nothing done to the API ever takes load balancers and Prometheus down.
//
// It sees the rest of hbd through Backend alone. A request that changes something is answered by the
// Raft leader; any other node passes it on, once.
//
// It does not decide, hold state of its own beyond request counters, or speak to a database.
package httpd
