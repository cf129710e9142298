-- Which token uses which scope map, as a document below the map's UID (see
-- registry/use.go): to ask whether one is used must not be to read all tokens.
-- A document's text has its map's id as that map spells it.

-- +goose Up
INSERT INTO resources (key, id, type, uid, etag, created, changed, body)
SELECT '/providers/cove.uses/scopemaps/' || lower(m.uid) || '/tokens/' || substr(t.key, length(rtrim(t.key, replace(t.key, '/', ''))) + 1),
    '/providers/Cove.Uses/scopeMaps/' || m.uid || '/tokens/' || substr(t.id, length(rtrim(t.id, replace(t.id, '/', ''))) + 1),
    'cove.uses/scopemaps/tokens', t.uid, t.etag, t.created, t.changed, '{}'
FROM resources m JOIN resources t ON t.type = 'microsoft.containerregistry/registries/tokens'
    AND t.key > substr(m.key, 1, length(rtrim(m.key, replace(m.key, '/', ''))) - length('scopemaps/')) || 'tokens/'
    AND t.key < substr(m.key, 1, length(rtrim(m.key, replace(m.key, '/', ''))) - length('scopemaps/')) || 'tokens0'
    AND replace(t.body, '"scopeMapId":"' || m.id || '"', '') <> t.body
WHERE m.type = 'microsoft.containerregistry/registries/scopemaps';
