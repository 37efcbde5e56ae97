// Package ready reads from TCP connections without a buffer for those that are idle: it
// waits until there are bytes and only then takes a buffer, from a pool.
package ready
