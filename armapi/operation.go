package armapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// retryAfter is how long a client is asked to wait before it looks again, in
// seconds. Without the header, az waits for thirty.
const retryAfter = 1

// errOperation is the answer to whoever asks for the result of an operation
// that has none. The code and sentence are those that it ended with.
func errOperation(o resource.Operation) error {
	return fault.Coded(fault.Conflict, o.Code, o.Message)
}

// accepted answers a request whose work goes on: where to ask how far it is
// (Azure-AsyncOperation, which clients prefer) and where its result will be
// (Location).
func (s *Server) accepted(c *Call, o resource.Operation) Reply {
	h := s.polling(c, o.ID)
	h.Set("Azure-AsyncOperation", s.link(c, o.ID.String()))
	return Reply{Status: http.StatusAccepted, Header: h}
}

func (s *Server) polling(c *Call, id arm.ID) http.Header {
	h := http.Header{}
	h.Set("Location", s.link(c, strings.Replace(id.String(), "/operationStatuses/", "/operationResults/", 1)))
	h.Set("Retry-After", strconv.Itoa(retryAfter))
	return h
}

// link is an address of this server for the caller to follow, by the
// configured name: with a token in hand, it goes wherever it is sent.
func (s *Server) link(c *Call, path string) string {
	u := url.URL{Scheme: "https", Host: s.Host, Path: path, RawQuery: url.Values{"api-version": {c.Query.Get("api-version")}}.Encode()}
	return u.String()
}

// operation finds the operation of a path. Who may not read its resource is
// told what they would be told of one that does not exist.
func (s *Server) operation(ctx context.Context, c *Call) (resource.Operation, error) {
	id, err := resource.OperationID(c.ID.Subscription(), c.Params["namespace"], c.Params["location"], c.Params["operation"])
	if err != nil {
		return resource.Operation{}, resource.ErrOperationUnknown
	}
	o, err := s.Service.Operation(ctx, id)
	if err == nil && c.may(permission(s.Service.Canonical(o.On.Type()), "read"), o.On) != nil {
		return resource.Operation{}, resource.ErrOperationUnknown
	}
	return o, err
}

func (s *Server) operationStatus(ctx context.Context, c *Call) (Reply, error) {
	o, err := s.operation(ctx, c)
	if err != nil {
		return Reply{}, err
	}
	reply := Reply{Status: http.StatusOK, Body: o.Show()}
	if o.Status == resource.Running {
		reply.Header = http.Header{"Retry-After": {strconv.Itoa(retryAfter)}}
	}
	return reply, nil
}

// operationResult is 202 until the operation has ended, then what came of it.
func (s *Server) operationResult(ctx context.Context, c *Call) (Reply, error) {
	o, err := s.operation(ctx, c)
	switch {
	case err != nil:
		return Reply{}, err
	case o.Status == resource.Running:
		return Reply{Status: http.StatusAccepted, Header: s.polling(c, o.ID)}, nil
	case o.Status != resource.Succeeded:
		return Reply{}, errOperation(o)
	case o.Detail == nil:
		return Reply{Status: http.StatusNoContent}, nil
	}
	return Reply{Status: http.StatusOK, Body: o.Detail}, nil
}
