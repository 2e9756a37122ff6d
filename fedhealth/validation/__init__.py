"""The data quality gate in front of training: may this CDM be used?"""
