from tinygen.gradcheck.examine import plain_finding
def diagnose(e):
    return [plain_finding(e, s) for s in e.suspects + e.odd]
