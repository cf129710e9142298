package ociapi

import (
	"cove.example/cove/access"
)

// row is what a kind of call needs and who answers it.
type row struct {
	needs func(Call) []access.Scope
	serve func(*Server, *exchange) error
}

// rows is the gate. A kind without a row is not answered, and a test fails.
var rows = [kinds]row{
	NoCall:         {signedIn, nil},
	Ping:           {signedIn, (*Server).ping},
	Catalog:        {catalog, (*Server).catalog},
	TagList:        {pull, (*Server).tagList},
	Referrers:      {pull, (*Server).referrers},
	ManifestGet:    {pull, (*Server).manifestGet},
	ManifestHead:   {pull, (*Server).manifestHead},
	ManifestPut:    {push, (*Server).manifestPut},
	ManifestDelete: {remove, (*Server).manifestDelete},
	BlobGet:        {pull, (*Server).blobGet},
	BlobHead:       {pull, (*Server).blobHead},
	BlobDelete:     {remove, (*Server).blobDelete},
	UploadStart:    {push, (*Server).uploadStart},
	UploadMount:    {mount, (*Server).uploadMount},
	UploadWhole:    {push, (*Server).uploadWhole},
	UploadStatus:   {push, (*Server).uploadStatus},
	UploadAppend:   {push, (*Server).uploadAppend},
	UploadFinish:   {push, (*Server).uploadFinish},
	UploadCancel:   {push, (*Server).uploadCancel},

	RepositoryList:   {catalog, (*Server).repositoryList},
	RepositoryGet:    {look, (*Server).repositoryGet},
	RepositoryLock:   {lock, (*Server).repositoryLock},
	RepositoryDelete: {remove, (*Server).repositoryDelete},
	TagInfoList:      {look, (*Server).tagInfoList},
	TagInfoGet:       {look, (*Server).tagInfoGet},
	TagLock:          {lock, (*Server).tagLock},
	TagDelete:        {remove, (*Server).manifestDelete},
	ManifestInfoList: {look, (*Server).manifestInfoList},
	ManifestInfoGet:  {look, (*Server).manifestInfoGet},
	ManifestLock:     {lock, (*Server).manifestLock},
}

func (c Call) scopes() []access.Scope { return rows[c.Kind].needs(c) }

func signedIn(Call) []access.Scope { return nil }

func catalog(Call) []access.Scope {
	return []access.Scope{{Type: "registry", Name: "catalog", Action: "*"}}
}

func pull(c Call) []access.Scope { return []access.Scope{repository(c.Repo.String(), "pull")} }

func push(c Call) []access.Scope {
	return []access.Scope{repository(c.Repo.String(), "pull"), repository(c.Repo.String(), "push")}
}

func remove(c Call) []access.Scope { return []access.Scope{repository(c.Repo.String(), "delete")} }

func look(c Call) []access.Scope {
	return []access.Scope{repository(c.Repo.String(), "metadata_read")}
}

func lock(c Call) []access.Scope {
	return []access.Scope{repository(c.Repo.String(), "metadata_write"), repository(c.Repo.String(), "metadata_read")}
}

func mount(c Call) []access.Scope { return append(push(c), repository(c.From.String(), "pull")) }

func repository(name, action string) access.Scope {
	return access.Scope{Type: "repository", Name: name, Action: action}
}
