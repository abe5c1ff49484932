import platform, lethe, time
from lethe.config.study import load_study
from lethe.models.prepare import prepare
if __name__ == "__main__":
    t=time.time()
    s=load_study("/tmp/realtofu.yaml"); p=prepare(s.benchmark,s.model); print(p.start,p.oracle,p.digests,time.time()-t)
