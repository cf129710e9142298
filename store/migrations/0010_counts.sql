-- How many there are of what one parent may have tens of thousands of: to ask
-- whether there is room for one more must not be to read them all. collection
-- is a key up to its last slash.

-- +goose Up
CREATE TABLE resource_counts (
    collection TEXT PRIMARY KEY,
    n          BIGINT NOT NULL
);
INSERT INTO resource_counts (collection, n)
SELECT rtrim(key, replace(key, '/', '')), COUNT(*) FROM resources
WHERE type IN ('microsoft.containerregistry/registries/tokens', 'microsoft.containerregistry/registries/scopemaps',
    'microsoft.network/privatednszones/a', 'microsoft.network/privatednszones/aaaa', 'microsoft.network/privatednszones/cname',
    'microsoft.network/privatednszones/mx', 'microsoft.network/privatednszones/ptr', 'microsoft.network/privatednszones/srv', 'microsoft.network/privatednszones/txt')
GROUP BY rtrim(key, replace(key, '/', ''));
