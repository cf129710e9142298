package arm

import (
	"strings"
	"time"

	"cove.example/cove/fault"
)

// The failures of ParseVersion.
var (
	ErrNoVersion  = fault.Coded(fault.Invalid, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	ErrBadVersion = fault.Coded(fault.Invalid, "InvalidApiVersionParameter", "the api-version is not valid")
)

// Version is an api-version. Cove gives every plausible one the same shape:
// clients are older and newer than any list that could be kept here.
type Version struct{ text string }

// ParseVersion accepts a date, with or without a suffix such as -preview.
func ParseVersion(s string) (Version, error) {
	if s == "" {
		return Version{}, ErrNoVersion
	}
	bad := ErrBadVersion.Detail("The api-version %q is not valid. An api-version is a date such as 2025-04-01, or a date and -preview.", clip(s))
	if len(s) < len(time.DateOnly) {
		return Version{}, bad
	}
	date, suffix := s[:len(time.DateOnly)], s[len(time.DateOnly):]
	// ARM began in 2014; a year of five digits or of the last century is a
	// slip of the hand.
	if day, err := time.Parse(time.DateOnly, date); err != nil || day.Year() < 2013 || day.Year() > 2999 {
		return Version{}, bad
	}
	switch strings.ToLower(suffix) {
	case "", "-preview", "-privatepreview", "-alpha", "-beta":
		return Version{s}, nil
	}
	return Version{}, bad
}

func (v Version) String() string { return v.text }
