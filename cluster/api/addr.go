package api

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultPort is the port of the API when an address names none.
const DefaultPort = "7948"

// ParseAddrs reads "HOST[:PORT][,HOST[:PORT]...]" into addresses to dial, each with a port. An IPv6
// address may be written with or without brackets when no port follows. The error names the part
// that is wrong.
func ParseAddrs(text string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		addr, err := parseAddr(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", part, err)
		}
		out = append(out, addr)
	}
	return out, nil
}

func parseAddr(part string) (string, error) {
	if part == "" {
		return "", fmt.Errorf("is empty, expected HOST:PORT")
	}
	if strings.Contains(part, "/") {
		return "", fmt.Errorf("is a URL or a path, expected HOST:PORT alone")
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(part, "["), "]")
	if ip, err := netip.ParseAddr(bare); err == nil {
		return net.JoinHostPort(ip.String(), DefaultPort), nil
	}
	if !strings.Contains(part, ":") {
		return net.JoinHostPort(part, DefaultPort), nil
	}
	host, port, err := net.SplitHostPort(part)
	if err != nil {
		return "", fmt.Errorf("expected HOST:PORT: %w", err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("port %q, expected 1 to 65535", port)
	}
	if host == "" {
		return "", fmt.Errorf("has no host, expected HOST:PORT")
	}
	return net.JoinHostPort(host, port), nil
}
