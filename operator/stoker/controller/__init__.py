"""The loop around the core: what is dirty, what is known, deciding, acting, backing off.

===========  ==========================================================================
`store`      the view of the cluster, fed by watches and by Stoker's own writes
`queue`      which ModelDeployments are to be looked at
`gather`     Prometheus and the draining engines
`executor`   one plan after another to the API server
`loop`       gather → decide → act
===========  ==========================================================================
"""
