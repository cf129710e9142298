# On PYTHONPATH of the Azure CLI 2.45.0 of Debian 12, whose SDK packages do not
# match it: without this, `az network` and `az role` end before they send a
# request. Neither cove nor the packages are changed by it.

# Lazy fixes for Debian bookworm's SDK/CLI mismatch. Nothing is imported until az imports it.
import sys, importlib, importlib.util
def _net(m): m.AZURE_API_PROFILES['latest'][m.ResourceType.MGMT_NETWORK] = '2022-07-01'
def _netops(m):
    import azure.mgmt.network.operations as o
    sys.modules[m.__name__ + '.operations'] = o; m.operations = o
def _auth(m):
    for n in ('RoleDefinitionsOperations', 'RoleAssignmentsOperations'):
        c = getattr(m, n, None)
        if c is not None and not hasattr(c, 'config'): c.config = property(lambda s: s._config)
P = {'azure.cli.core.profiles._shared': _net, 'azure.mgmt.network.v2022_07_01': _netops,
     'azure.mgmt.authorization.v2018_01_01_preview.operations': _auth,
     'azure.mgmt.authorization.v2020_04_01_preview.operations': _auth}
class F:
    def find_spec(self, name, path=None, target=None):
        fix = P.pop(name, None)
        if fix is None: return None
        s = importlib.util.find_spec(name)
        if s is None: return None
        ex = s.loader.exec_module
        def run(m): ex(m); fix(m)
        s.loader.exec_module = run
        return s
sys.meta_path.insert(0, F())
