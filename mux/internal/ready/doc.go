// Package ready is for TCP connections that are idle. A [Reader] reads from one without a buffer for it: it waits until
// there are bytes and only then takes a buffer, from a pool. A [Lot] waits for many at once, without a goroutine for each.
// Both do so on Linux alone.
package ready
