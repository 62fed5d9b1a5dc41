// Package transfer carries one long stream of bytes from one node to another and outlives a broken link.
//
// The sender's Outbox reads a source and keeps what was not confirmed yet, at most a window of it: no second copy of the data is
// ever made. The receiver's Inbox asks for the bytes from an offset on, which confirms all before it; after a broken link it asks
// for the same offset again. While nobody asks, the window fills and the source waits; after a bounded time the sender gives up.
// Every chunk carries a checksum (CRC-32C). The end is a chunk of its own, sent only when the source ended well.
//
// It does not know what the bytes are, does not encrypt, and does not survive the end of either process.
package transfer
