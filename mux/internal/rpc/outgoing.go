package rpc

import "google.golang.org/grpc/metadata"

// OutgoingMetadata makes of md what a client may send: without the keys that gRPC
// keeps for itself. Keys or values that gRPC does not allow are an error, whose
// status is INTERNAL, as with grpc-go. md is changed.
func OutgoingMetadata(md metadata.MD) (metadata.MD, error) {
	if err := validate(md); err != nil {
		return nil, err
	}
	return dropReserved(md), nil
}
